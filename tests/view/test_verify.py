import pytest

from geotrain.view.config import ViewConfig
from geotrain.view.verify import consistency, node_facts, problems, questions, racks

NODES = {"A1": 1, "B2": 2, "C3": 3}
HEALTHY = {
    "strong-consistency": "true",
    "effective_replication_factor": "3",
    "unavailable_partitions": "0",
    "dead_partitions": "0",
}
CONFIG = ViewConfig(rack=1)


def facts(roster="C3@3,B2@2,A1@1", observed="C3@3,B2@2,A1@1", *, known="test;geotrain", ask=NODES, **changes):
    """What three nodes on three racks say, changed where the test says so."""
    statistics = ";".join(f"{name}={value}" for name, value in (HEALTHY | changes).items())
    roster_line = f"roster={roster}:pending_roster={roster}:observed_nodes={observed}"
    values = lambda rack: (known, statistics, roster_line, f"test:7;geotrain:{rack}")  # noqa: E731
    return {
        node: node_facts(dict(zip(questions("geotrain"), values(rack), strict=True)), "geotrain")
        for node, rack in ask.items()
    }


def whats(found):
    return [problem.what for problem in found]


def test_a_healthy_strong_view_has_no_problems():
    found = facts()
    assert problems(found, CONFIG, [1, 2, 3]) == []
    assert consistency(found.values()) == "strong"
    assert racks(found.values()) == [1, 2, 3]


def test_a_namespace_that_is_not_strong_is_refused_with_the_switch_that_accepts_it():
    (problem,) = problems(facts(**{"strong-consistency": "false"}), CONFIG, [])
    assert "not strongly consistent" in problem.what
    assert "view.require_strong_consistency=false" in problem.remedy


def test_an_eventual_namespace_is_accepted_where_the_configuration_accepts_it_and_is_called_eventual():
    found = facts("null", **{"strong-consistency": "false"})
    assert problems(found, ViewConfig(rack=1, require_strong_consistency=False), [1, 2, 3]) == []
    assert consistency(found.values()) == "eventual"


def test_an_eventual_namespace_can_not_promise_linearizable_reads():
    config = ViewConfig(rack=1, require_strong_consistency=False, reads="linearizable")
    (problem,) = problems(facts(**{"strong-consistency": "false"}), config, [])
    assert "linearizable" in problem.what


def test_one_node_that_is_not_strong_makes_the_view_eventual():
    mixed = facts() | {"B2": facts(**{"strong-consistency": "false"})["B2"]}
    assert consistency(mixed.values()) == "eventual"


def test_an_unknown_namespace_is_refused_with_those_that_are_known():
    (problem,) = problems({"A1": node_facts({"namespaces": "test;models"}, "geotrain")}, ViewConfig(rack=1), [1])
    assert "geotrain" in problem.what
    assert "models, test" in problem.remedy


@pytest.mark.parametrize(
    ("roster", "observed", "named"),
    [
        ("C3@3,B2@2,A1@1", "B2@2,A1@1", "not in the cluster: C3"),
        ("B2@2,A1@1", "C3@3,B2@2,A1@1", "not on the roster: C3"),
        ("M1|D4@1,C3@3,B2@2,A1@1", "D4@1,C3@3,B2@2,A1@1", "can't be reached from here: D4"),
    ],
)
def test_roster_and_nodes_that_do_not_agree_are_named(roster, observed, named):
    (what,) = whats(problems(facts(roster, observed), CONFIG, [1, 2, 3]))
    assert what.endswith(named)


def test_an_active_rack_in_the_roster_is_not_part_of_a_nodes_name():
    assert problems(facts("M1|C3@3,M1|B2@2,M1|A1@1", "M1|C3@3,B2@2,A1@1"), CONFIG, []) == []


@pytest.mark.parametrize("kind", ["unavailable", "dead"])
def test_partitions_that_are_lost_are_counted(kind):
    (what,) = whats(problems(facts(**{f"{kind}_partitions": "17"}), CONFIG, []))
    assert what == f"17 of 4096 partitions are {kind}"


def test_a_rack_without_a_node_is_named():
    (what,) = whats(problems(facts(), ViewConfig(rack=5), [1, 4]))
    assert "rack 4, 5" in what


def test_a_replication_factor_below_the_number_of_racks_is_refused():
    (problem,) = problems(facts(effective_replication_factor="2"), CONFIG, [1, 2, 3])
    assert "replication factor 2" in problem.what
    assert "replication-factor 3" in problem.remedy


def test_an_edition_without_racks_and_roster_is_judged_by_the_rest():
    answers = {
        "namespaces": "geotrain",
        "namespace/geotrain": "strong-consistency=false;effective_replication_factor=1",
    }
    found = {"A1": node_facts(answers, "geotrain")}
    assert problems(found, ViewConfig(rack=1, require_strong_consistency=False), [1, 2, 3]) == []
    assert racks(found.values()) == []


def test_every_problem_is_told_at_once():
    found = problems(facts("A1@1", unavailable_partitions="4096", effective_replication_factor="1"), CONFIG, [9])
    assert len(found) == 4
    assert all(problem.remedy for problem in found)
