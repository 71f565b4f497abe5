"""What survives a restart of the cluster's process beside the records."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.wire.codes import Particle
from geotrain.wire.partitions import NUM_PARTITIONS
from sim.cluster.answers.info import answer
from sim.cluster.execution.indexes import SOURCES, TYPES, Definition
from sim.cluster.journal import Journal
from sim.cluster.metadata import Metadata, decode, encode, truncated_before_ms
from sim.cluster.node import State
from sim.cluster.sites.roster import Membership
from tests.sim.cluster.in_process import NAMESPACE, Commands

names = st.text(string.printable, max_size=20)
definitions = st.builds(
    Definition,
    names.map(str.encode),
    names.map(str.encode),
    st.sampled_from(list(TYPES.values())),
    st.integers(0, len(SOURCES) - 1),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
memberships = st.builds(
    Membership,
    st.integers(0),
    st.dictionaries(st.text("0123456789ABCDEF", min_size=1, max_size=16), st.integers(0, 1_000_000), min_size=1),
    st.integers(0, 1_000_000),
    st.just(frozenset[str]()),
)
luts = st.dictionaries(st.none() | names.map(str.encode), st.integers(1))


@given(st.builds(Metadata, st.integers(0), memberships, memberships, st.dictionaries(names, definitions), luts))
def test_metadata_comes_back_as_it_was(metadata: Metadata) -> None:
    assert decode(encode(metadata)) == metadata


def test_a_set_is_truncated_by_itself_or_with_its_namespace() -> None:
    assert truncated_before_ms({}, b"s") == 0
    assert truncated_before_ms({b"s": 5, b"t": 9}, b"s") == 5
    assert truncated_before_ms({b"s": 5, None: 7}, b"s") == 7
    assert truncated_before_ms({b"s": 5, None: 7}, b"") == 7


def restarted(commands: Commands, folder: Path, **config: object) -> Commands:
    """The cluster after its process was killed and started again."""
    if commands.cluster.journal is not None:
        commands.cluster.journal.close()
    again = Commands(**config)
    again.cluster.keep_in(Journal(folder, NAMESPACE))
    return again


@pytest.fixture
def kept(tmp_path: Path) -> Commands:
    return restarted(Commands(), tmp_path)


def test_indexes_come_back(kept: Commands, tmp_path: Path) -> None:
    node = kept.cluster.nodes[0]
    for name, bin_name in (("first", "a"), ("second", "b"), ("third", "c")):
        kept_index = f"sindex-create:ns=test;set=s;indexname={name};bin={bin_name};type=numeric"
        assert answer(kept.cluster, node, kept_index) == "ok"
    assert answer(kept.cluster, node, "sindex-delete:ns=test;indexname=second") == "ok"
    expected = {name: Definition(b"s", on, Particle.INTEGER, 0) for name, on in (("first", b"a"), ("third", b"c"))}
    for _ in range(2):
        kept = restarted(kept, tmp_path)
        assert kept.cluster.indexes == expected


def test_a_roster_comes_back_and_so_does_the_one_that_waits_for_a_recluster(kept: Commands, tmp_path: Path) -> None:
    ewr, jfk, lga = (node.node_id for node in kept.cluster.nodes)
    two, one = f"M2|{ewr}@1,{jfk}@2", f"{lga}@7"
    answer(kept.cluster, kept.cluster.nodes[0], f"roster-set:namespace=test;nodes={two}")
    kept.cluster.recluster(kept.cluster.nodes[0].view.members)
    answer(kept.cluster, kept.cluster.nodes[0], f"roster-set:namespace=test;nodes={one}")
    before = answer(kept.cluster, kept.cluster.nodes[0], "roster:namespace=test")
    kept = restarted(kept, tmp_path)
    assert answer(kept.cluster, kept.cluster.nodes[0], "roster:namespace=test") == before
    assert kept.cluster.nodes[2].owned[0] == []
    kept.cluster.recluster(kept.cluster.nodes[0].view.members)
    assert f"roster={one}:pending_roster={one}" in answer(kept.cluster, kept.cluster.nodes[0], "roster:namespace=test")


def test_the_regime_never_goes_back(kept: Commands, tmp_path: Path) -> None:
    regimes = [kept.cluster.nodes[0].view.regime]
    for _ in range(3):
        for node in kept.cluster.nodes[1:]:
            node.die(keeps_memory=True)
            kept.cluster.rebalance()
            regimes.append(kept.cluster.nodes[0].view.regime)
        kept = restarted(kept, tmp_path)
        regimes.append(kept.cluster.nodes[0].view.regime)
    assert regimes == sorted(set(regimes))


def test_a_record_that_was_truncated_does_not_come_back_though_the_process_died_before_it_was_gone(
    kept: Commands, tmp_path: Path
) -> None:
    kept.now_ms = 1_600_000_000_000
    kept.put({"a": 1})
    kept.pass_s(60)
    kept.put({"a": 2}, digest=b"x" * 20)
    lut_ns = (kept.now_ms - 1) * 1_000_000
    assert answer(kept.cluster, kept.cluster.nodes[0], f"truncate:namespace=test;set=s;lut={lut_ns}") == "ok"
    assert len(kept.scan()) == 2
    for _ in range(2):
        kept = restarted(kept, tmp_path)
        assert [message.bins() for message in kept.scan()] == [{"a": 2}]
        assert kept.cluster.truncate_luts == {b"s": lut_ns // 1_000_000}


def test_nodes_that_the_kept_roster_does_not_name_are_said(
    kept: Commands, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ewr, jfk, _ = kept.cluster.nodes
    answer(kept.cluster, ewr, f"roster-set:namespace=test;nodes={ewr.node_id}@1,{jfk.node_id}@2")
    kept.cluster.recluster(ewr.view.members)
    restarted(kept, tmp_path)
    assert "not on the roster that data_dir has kept, and so without data: lga" in caplog.text


def test_records_that_can_not_be_served_after_a_restart_are_there_when_they_can(kept: Commands, tmp_path: Path) -> None:
    def have_roster(commands: Commands, text: str) -> None:
        node = commands.cluster.nodes[0]
        assert answer(commands.cluster, node, f"roster-set:namespace=test;nodes={text}") == "ok"
        commands.cluster.recluster(node.view.members)

    kept.put({"a": 1})
    have_roster(kept, "A1@1,B2@2,C3@3,D4@4")
    kept = restarted(kept, tmp_path)
    assert len(kept.cluster.nodes[0].view.unavailable) == NUM_PARTITIONS
    have_roster(kept, ",".join(f"{node.node_id}@{node.rack}" for node in kept.cluster.nodes))
    assert [message.bins() for message in kept.scan()] == [{"a": 1}]


def test_what_was_truncated_while_a_node_was_away_does_not_come_back_with_it() -> None:
    for strong_consistency in (False, True):
        commands = Commands(strong_consistency=strong_consistency)
        cluster, away = commands.cluster, commands.cluster.nodes[2]
        commands.put({"a": 1})
        away.die(keeps_memory=True)
        cluster.rebalance()
        cluster.truncate(cluster.nodes[0], b"s", commands.now_ms + 1)
        commands.drop_all()
        away.state = State.UP
        cluster.rebalance()
        assert [commands.scan(node) for node in range(3)] == [[], [], []]
