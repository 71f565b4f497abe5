import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.sites.topology import sub_clusters


def hears_but(*cut: str):  # type: ignore[no-untyped-def]
    """Everybody hears everybody, but for these pairs, the second of which does not hear the first."""
    return lambda a, b: a + b not in cut


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ((), [("a", "b", "c")]),
        (("ab", "ba", "cb", "bc"), [("a", "c"), ("b",)]),
        (("ab", "cb"), [("a", "c"), ("b",)]),
        (("ab",), [("a", "c"), ("b",)]),
        (("ab", "bc", "ca"), [("a",), ("b",), ("c",)]),
    ],
    ids=["nothing cut", "b cut off", "b heard by nobody", "a and b cut, both hear c", "all cut one way"],
)
def test_a_cut_splits_the_nodes(cut: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    assert sub_clusters("cba", hears_but(*cut)) == expected


@given(cut=st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"))))
def test_every_node_is_in_one_sub_cluster_and_hears_all_of_it(cut: set[tuple[str, str]]) -> None:
    found = sub_clusters("abcdef", lambda a, b: (a, b) not in cut)
    assert sorted(name for group in found for name in group) == list("abcdef")
    assert all((a, b) not in cut for group in found for a in group for b in group if a != b)
