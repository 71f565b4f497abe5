from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from geotrain.dtypes import DTYPES
from geotrain.states.difference import changes, difference, flat
from geotrain.states.manifest import Manifest, TensorEntry
from geotrain.states.tensors import split

BEFORE = Manifest(
    model="flights",
    scope="global",
    version=3,
    tensors={"body": TensorEntry("F32", (2, 3), ("a", "b")), "head": TensorEntry("F32", (4,), ("c",))},
    lineage={
        "job": "j",
        "round": 3,
        "metrics": {"ewr": {"loss": 0.5}, "jfk": {"loss": 0.4}},
        "cut": {"legs": "f1", "rows": "7"},
    },
    metadata={"task": "{}"},
    created_s=1.0,
)


def test_nothing_changed_between_a_state_and_itself():
    found = difference(BEFORE, BEFORE)
    assert (found.num_same, found.tensors, found.metrics, found.data, found.lineage) == (2, {}, {}, {}, {})


def test_tensors_that_changed_came_or_went_are_named_with_the_parts_that_are_new():
    after = replace(
        BEFORE,
        version=4,
        tensors={"body": TensorEntry("F32", (2, 3), ("a", "x")), "new": TensorEntry("I64", (), ("n",))},
    )
    found = difference(BEFORE, after)
    assert (found.before, found.after, found.num_same) == ("flights/global@3", "flights/global@4", 0)
    body, head, new = found.tensors["body"], found.tensors["head"], found.tensors["new"]
    assert (body.num_parts, body.num_parts_changed) == (2, 1)
    assert (head.before, head.after) == ("F32 [4]", None)
    assert (new.before, new.after) == (None, "I64 []")


def test_metrics_and_data_are_told_with_both_values():
    lineage = dict(BEFORE.lineage) | {
        "round": 4,
        "metrics": {"ewr": {"loss": 0.45}, "jfk": {"loss": 0.4}},
        "cut": {"legs": "f2", "rows": "7"},
    }
    found = difference(BEFORE, replace(BEFORE, lineage=lineage, metadata={"task": "{1}"}))
    assert found.metrics == {"ewr/loss": (0.5, 0.45)}
    assert found.data == {"legs": ("f1", "f2")}
    assert found.lineage == {"round": (3, 4)}
    assert found.metadata == ("task",)


VALUES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))


@given(VALUES, VALUES)
def test_changes_are_the_same_seen_from_either_side(left, right):
    there, back = changes(left, right), changes(right, left)
    assert {name: (new, old) for name, (old, new) in there.items()} == back
    assert (there == {}) == (left == right)


def test_nested_values_are_named_by_their_path():
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a/b/c": 1, "d": [2]}


def test_every_type_of_a_state_has_its_bytes():
    for dtype in DTYPES.values():
        tensor = torch.zeros(3, 2).to(dtype)
        assert split("t", tensor, 1000)[0].num_bytes == tensor.nbytes
