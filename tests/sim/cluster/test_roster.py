import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.sites.roster import Membership, decode_roster, encode_roster, reclustered

node_ids = st.text("0123456789ABCDEF", min_size=1, max_size=16)


@given(nodes=st.dictionaries(node_ids, st.integers(0, 1_000_000), min_size=1), active_rack=st.integers(0, 9))
def test_a_roster_reads_as_it_was_written(nodes: dict[str, int], active_rack: int) -> None:
    assert decode_roster(encode_roster(nodes, active_rack)) == (nodes, active_rack)


def test_a_roster_is_written_as_servers_write_it() -> None:
    assert encode_roster({"A1": 1, "C3": 3, "B2": 0}) == "C3@3,B2,A1@1"
    assert encode_roster({"A1": 1}, active_rack=2) == "M2|A1@1"
    assert encode_roster({}) == "null"


@pytest.mark.parametrize("text", ["", ",", "null", "A1@", "A1@x", "A1 B2", "M1|", "0123456789ABCDEF0@1"])
def test_what_is_no_roster_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nodes|roster node"):
        decode_roster(text)


def test_a_recluster_takes_the_pending_roster_and_all_quiescing_and_leaves_those_that_are_away() -> None:
    before = Membership(7, {"a": 1, "b": 2}, active_rack=1, quiesced=frozenset({"a", "x"}))
    pending = Membership(3, {"a": 1, "c": 3}, active_rack=3)
    after = reclustered(before, pending, {"a": False, "b": True, "c": False})
    assert after == Membership(8, {"a": 1, "c": 3}, active_rack=3, quiesced=frozenset({"b", "x"}))
