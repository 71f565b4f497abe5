import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import DataError
from geotrain.states.tensors import DTYPES, from_parts, split

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def there_and_back(tensor, part_bytes):
    entry, parts = split("t", tensor, part_bytes)
    assert all(len(part) <= part_bytes for part in parts)
    return from_parts(entry, [bytes(part) for part in parts])


@given(st.sampled_from(sorted(DTYPES)), SHAPES, st.integers(1, 40), st.integers(0, 2**32))
def test_a_tensor_comes_back_from_its_parts_bit_for_bit(word, shape, part_bytes, seed):
    generator = torch.Generator().manual_seed(seed)
    tensor = (torch.rand(shape, generator=generator) * 100).to(DTYPES[word])
    back = there_and_back(tensor, part_bytes)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(back, tensor)


def test_not_a_number_and_minus_zero_survive():
    tensor = torch.tensor([float("nan"), float("-inf"), -0.0])
    back = there_and_back(tensor, part_bytes=64)
    assert torch.equal(back.view(torch.int32), tensor.view(torch.int32))


def test_parameters_and_views_with_strides_are_taken_by_value():
    tensor = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)).T
    assert torch.equal(there_and_back(tensor, part_bytes=64), tensor)


def test_a_type_that_the_format_lacks_is_refused_by_name():
    with pytest.raises(DataError, match=r"tensor head has the type torch\.complex64"):
        split("head", torch.zeros(1, dtype=torch.complex64), 64)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.zeros(3), "is of ndarray"),
        (torch.eye(3).to_sparse(), r"has the layout torch\.sparse_coo"),
        (torch.zeros(3, device="meta"), r"has no values \(device meta\)"),
    ],
)
def test_what_is_no_tensor_with_values_in_their_places_is_refused_by_name(values, what):
    with pytest.raises(DataError, match=f"tensor head {what}"):
        split("head", values, 64)
