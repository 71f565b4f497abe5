from datetime import UTC, datetime

import pyarrow as pa
import pytest
import torch

from geotrain.errors import DataError
from site_agent.join.outputs import to_numpy, to_torch

AT = datetime(2024, 1, 1, 12, 0, 0, 250_000)
TABLE = pa.table(
    {
        "count": pa.array([1, 2, 3], pa.int64()),
        "price": pa.array([0.5, 1.5, 2.5], pa.float64()),
        "at": pa.array([AT] * 3, pa.timestamp("us")),
        "late": pa.array([True, False, True]),
    }
)


def address(table: pa.Table, name: str) -> int:
    return int(table[name].chunk(0).buffers()[1].address)


@pytest.mark.parametrize("name", ["count", "price", "at"])
def test_numbers_and_times_without_nulls_share_their_memory(name: str) -> None:
    assert to_torch(TABLE)[name].data_ptr() == address(TABLE, name)
    assert to_numpy(TABLE)[name].__array_interface__["data"][0] == address(TABLE, name)


def test_a_slice_of_a_column_shares_its_part_of_the_memory() -> None:
    tensor = to_torch(TABLE.slice(1))["count"]
    assert tensor.tolist() == [2, 3]
    assert tensor.data_ptr() == address(TABLE, "count") + 8


def test_every_type_that_fits_becomes_a_tensor() -> None:
    tensors = to_torch(TABLE)
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "count": torch.int64,
        "price": torch.float64,
        "at": torch.int64,
        "late": torch.bool,
    }
    assert tensors["late"].tolist() == [True, False, True]
    assert datetime.fromtimestamp(tensors["at"][0].item() / 1e6, UTC).replace(tzinfo=None) == AT


def test_a_null_float_is_not_a_number() -> None:
    tensor = to_torch(pa.table({"price": pa.array([1.0, None], pa.float64())}))["price"]
    assert tensor[0] == 1.0
    assert tensor[1].isnan()


def test_an_empty_table_becomes_empty_tensors() -> None:
    assert {name: len(tensor) for name, tensor in to_torch(TABLE.slice(3)).items()} == dict.fromkeys(
        TABLE.column_names, 0
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a"]), "column x: string does not fit into a tensor"),
        (pa.array([1, None]), "column x: 1 values are null"),
        (pa.array([True, None]), "column x: 1 values are null"),
    ],
)
def test_what_no_tensor_can_hold_is_refused_by_its_column(column: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_torch(pa.table({"x": column}))
