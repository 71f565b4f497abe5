from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.errors import GeotrainError
from site_agent.join.planner import Decision, Plan, Rates, Site, Source, plan_steps
from tests.site_agent.join.tasks import EQUI, LATEST, orders

ROWS = Site(num_rows=1_000_000, num_cpus=8, num_tasks=8, max_broadcast_bytes=100 << 20)
BIG = Source(num_rows=40_000_000, num_bytes=8 << 30, num_keys=1_000_000)
SMALL = Source(num_rows=3_000, num_bytes=300_000, num_keys=1_000_000)
LOCAL = Source(num_rows=3_000, num_bytes=300_000, is_local=True)
OVER_ALL = {"kind": "latest", "known_at": "seen_at", "columns": {"last": "score"}}


def decide(source: Source, step: Mapping[str, Any] = EQUI, site: Site = ROWS) -> Decision:
    [decision] = plan_steps(orders(dict(step)), {0: source}, site)
    return decision


def test_few_keys_of_a_large_set_are_looked_up_and_the_line_says_why() -> None:
    measured = Rates(scan=1.33e6, lookup=8305, measured=frozenset({"lookup"}))
    decision = decide(replace(BIG, num_keys=3322), site=replace(ROWS, rates=measured))
    assert decision.plan is Plan.LOOKUP
    assert decision.reason == "join accounts: look-up (3,322 of 40 M keys, 0.4 s against 31 s for a scan)"


def test_what_was_not_measured_yet_is_said_to_be_assumed() -> None:
    assert decide(replace(BIG, num_keys=3322)).reason.endswith("for a scan, assumed)")


def test_many_keys_of_a_large_set_meet_it_partition_by_partition() -> None:
    assert decide(replace(BIG, num_keys=30_000_000)).plan is Plan.CO_PARTITIONED


def test_a_small_set_is_broadcast_rather_than_rows_sorted_for_it() -> None:
    assert decide(SMALL).plan is Plan.BROADCAST


def test_a_large_set_whose_key_is_not_joined_by_is_shuffled() -> None:
    assert decide(replace(BIG, num_keys=None)).plan is Plan.SHUFFLE


def test_a_dataset_of_the_sites_own_is_broadcast_while_it_fits() -> None:
    assert decide(LOCAL).reason == "join accounts: broadcast (3,000 rows of the site's own)"
    assert decide(replace(LOCAL, num_rows=10**8, num_bytes=1 << 40)).plan is Plan.SHUFFLE


def test_a_set_that_must_be_proven_is_read_though_a_look_up_would_be_faster() -> None:
    decision = decide(replace(BIG, num_keys=10, must_be_read=True))
    assert decision.plan is Plan.CO_PARTITIONED
    assert "though 0.0001 s for a look-up, which proves nothing" in decision.reason


def test_a_forced_plan_is_taken_however_slow() -> None:
    decision = decide(replace(BIG, num_keys=30_000_000), {**EQUI, "plan": "lookup"})
    assert decision.plan is Plan.LOOKUP
    assert decision.reason == "join accounts: look-up, as task.join[0].plan says (30 M of 40 M keys)"


def test_a_forced_broadcast_of_what_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(GeotrainError, match=r"task.join\[0\].plan: broadcast can't be: 8.59 GB are over .* 105 MB"):
        decide(BIG, {**EQUI, "plan": "broadcast"})


def test_a_window_over_all_rows_of_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GeotrainError, match=r"task.join\[0\]: accounts is too big to be broadcast"):
        decide(replace(BIG, num_keys=None), OVER_ALL)


def test_rows_that_were_shuffled_can_no_longer_lie_beside_partitions() -> None:
    task = orders({**EQUI, "plan": "shuffle"}, {**LATEST, "plan": "co_partitioned"})
    with pytest.raises(GeotrainError, match="an earlier step has put the rows in another order"):
        plan_steps(task, {0: BIG, 1: BIG}, ROWS)
    chosen = plan_steps(orders({**EQUI, "plan": "shuffle"}, LATEST), {0: BIG, 1: BIG}, ROWS)
    assert chosen[1].plan is not Plan.CO_PARTITIONED


def test_steps_of_one_set_by_one_key_share_the_order_of_the_rows() -> None:
    many = replace(BIG, num_keys=30_000_000)
    assert [d.plan for d in plan_steps(orders(EQUI, LATEST), {0: many, 1: many}, ROWS)] == [Plan.CO_PARTITIONED] * 2


counts = st.integers(0, 10**9)
sources = st.builds(
    Source,
    num_rows=counts,
    num_bytes=counts,
    num_keys=st.none() | counts,
    is_local=st.booleans(),
    must_be_read=st.booleans(),
    is_bucketed=st.booleans(),
)


@settings(deadline=None)  # a loaded machine is no failure
@given(
    sources,
    st.builds(
        Site, num_rows=counts, num_cpus=st.integers(1, 64), num_tasks=st.integers(1, 64), max_broadcast_bytes=counts
    ),
)
def test_an_equi_join_always_finds_a_plan_that_its_source_allows(source: Source, site: Site) -> None:
    plan = decide(source, site=site).plan
    assert plan is not Plan.LOOKUP or (source.num_keys is not None and not source.must_be_read)
    assert plan is not Plan.BROADCAST or source.num_bytes <= site.max_broadcast_bytes
    assert plan is not Plan.CO_PARTITIONED or source.num_keys is not None


def test_a_rate_is_learned_from_enough_rows_only() -> None:
    assert Rates().measure("scan", 10, 1.0) == Rates()
    learned = Rates().measure("scan", 3_000_000, 2.0)
    assert (learned.scan, learned.measured) == (1_500_000, {"scan"})
