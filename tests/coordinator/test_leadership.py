"""Who leads: the machine by itself, and several of them around one lease, with clocks, pauses and lost calls."""

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.leadership import (
    Lead,
    Leadership,
    Look,
    Looked,
    Renew,
    Renewed,
    Role,
    Stop,
    Stopped,
    Take,
    Taken,
    TakenOver,
    Tick,
    Unanswered,
)
from geotrain.lease import Lease

LEASE_S = 6.0
OTHERS = Lease(owner="other", epoch=4, lease_s=LEASE_S, address="b:1", generation=9)


def machine() -> Leadership:
    return Leadership("me", LEASE_S, now_s=0.0)


def mine(seen: Lease | None) -> Lease:
    return Lease(owner="me", epoch=seen.epoch + 1 if seen else 1, lease_s=LEASE_S, address="a:1")


def leader(now_s: float = 0.0) -> Leadership:
    leadership = machine()
    assert leadership.handle(Tick(), now_s=now_s) == [Look()]
    assert leadership.handle(Looked(None), now_s=now_s) == [Take(None)]
    assert leadership.handle(Taken(mine(None), now_s), now_s=now_s) == [Lead(1)]
    return leadership


@pytest.mark.parametrize("seen", [None, replace(OTHERS, owner=""), replace(OTHERS, owner="me")])
def test_a_lease_that_nobody_holds_is_taken_at_once(seen):
    leadership = machine()
    leadership.handle(Tick(), now_s=0)
    assert leadership.handle(Looked(seen), now_s=0) == [Take(seen)]


def test_a_standby_asks_for_the_lease_of_another_only_when_it_may_have_run_out():
    leadership, now_s, asked = machine(), 0.0, []
    while not asked:
        for instruction in leadership.handle(Tick(), now_s=now_s):
            assert instruction == Look()
            asked = leadership.handle(Looked(OTHERS), now_s=now_s)
        now_s += 0.1
    assert asked == [Take(OTHERS)]
    assert LEASE_S * 0.9 < now_s < LEASE_S * 1.1


def test_a_lease_that_is_renewed_is_left_alone():
    leadership = machine()
    for step in range(1000):
        for _ in leadership.handle(Tick(), now_s=step / 10):
            assert leadership.handle(Looked(replace(OTHERS, generation=step // 20)), now_s=step / 10) == []
    assert "epoch 4 leads at b:1" in leadership.reason


def test_the_lease_length_that_counts_is_the_holders():
    longer = replace(OTHERS, lease_s=60.0)
    leadership = machine()
    for step in range(500):
        for _ in leadership.handle(Tick(), now_s=step / 10):
            assert leadership.handle(Looked(longer), now_s=step / 10) == []


def test_a_leader_renews_several_times_a_lease_and_leads_on():
    leadership, num_renewals = leader(), 0
    for step in range(600):
        for instruction in leadership.handle(Tick(), now_s=step / 10):
            assert instruction == Renew(1)
            num_renewals += 1
            assert leadership.handle(Renewed(step / 10), now_s=step / 10) == []
    assert leadership.holds_at(60.0)
    assert num_renewals >= 3 * 60 / LEASE_S


def test_a_leader_whose_renewals_are_not_answered_stops_before_its_lease_runs_out_and_says_why():
    leadership, now_s = leader(), 0.0
    asked: list[object] = []
    while not any(isinstance(instruction, Stop) for instruction in asked):
        now_s += 0.1
        asked = leadership.handle(Tick(), now_s=now_s)
        if asked == [Renew(1)]:
            leadership.handle(Unanswered("no answer within the deadline"), now_s=now_s)
    assert now_s < LEASE_S
    assert "no answer within the deadline" in asked[0].reason
    assert not leadership.holds_at(now_s)


def test_a_renewal_that_is_under_way_does_not_keep_a_leader_from_stopping():
    leadership = leader()
    assert leadership.handle(Tick(), now_s=2) == [Renew(1)]
    assert leadership.due_s < LEASE_S
    [stop] = leadership.handle(Tick(), now_s=leadership.due_s)
    assert isinstance(stop, Stop)
    assert leadership.handle(Renewed(2.0), now_s=7) == []
    assert leadership.role is Role.STOPPING


def test_a_renewal_counts_from_before_it_was_sent():
    leadership = leader()
    leadership.handle(Tick(), now_s=2)
    leadership.handle(Renewed(2.0), now_s=4)
    assert leadership.holds_at(2 + LEASE_S * 0.7)
    assert not leadership.holds_at(4 + LEASE_S * 0.8)


@pytest.mark.parametrize("pause_s", [LEASE_S, 27.0, 3600.0])
def test_a_leader_that_wakes_from_a_pause_stops_before_it_does_anything_else(pause_s):
    leadership = leader()
    [stop] = leadership.handle(Tick(), now_s=pause_s)
    assert isinstance(stop, Stop)


def test_a_leader_whose_lease_was_taken_stops_and_stands_again_when_its_jobs_have_stopped():
    leadership = leader()
    leadership.handle(Tick(), now_s=2)
    assert leadership.handle(TakenOver("epoch 2 at b:1"), now_s=2) == [Stop("epoch 2 at b:1")]
    assert leadership.handle(Tick(), now_s=3) == []
    assert leadership.handle(Stopped(), now_s=4) == [Look()]
    assert leadership.role is Role.STANDBY


def test_a_lease_that_was_taken_too_slowly_is_not_relied_on():
    leadership = machine()
    leadership.handle(Tick(), now_s=0)
    leadership.handle(Looked(None), now_s=0)
    assert not any(isinstance(one, Lead) for one in leadership.handle(Taken(mine(None), 0.0), now_s=LEASE_S))
    assert leadership.handle(Looked(mine(None)), now_s=LEASE_S + 1) == [Take(mine(None))]


@dataclass
class Store:
    """The lease record, and the server's clock."""

    lease: Lease | None = None
    written_s: float = 0.0

    def take(self, owner: str, seen: Lease | None, now_s: float) -> Lease | None:
        if self.lease != seen:
            return None
        if seen and seen.owner not in ("", owner) and now_s - self.written_s < seen.lease_s:
            return None
        epoch, generation = (seen.epoch + 1, seen.generation + 1) if seen else (1, 1)
        self._write(Lease(owner=owner, epoch=epoch, lease_s=LEASE_S, address=owner, generation=generation), now_s)
        return self.lease

    def renew(self, owner: str, epoch: int, now_s: float) -> bool:
        if self.lease is None or (self.lease.owner, self.lease.epoch) != (owner, epoch):
            return False
        self._write(replace(self.lease, generation=self.lease.generation + 1), now_s)
        return True

    def _write(self, lease: Lease, now_s: float) -> None:
        self.lease, self.written_s = lease, now_s


@dataclass
class Candidate:
    """A coordinator whose clock runs a little fast or slow, whose calls take their time, and that may be paused."""

    name: str
    rate: float
    machine: Leadership = field(init=False)
    on_the_way: list[tuple[float, object]] = field(default_factory=list)
    paused_until_s: float = 0.0
    epochs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Leadership(self.name, LEASE_S, now_s=0.0)

    def clock(self, now_s: float) -> float:
        return now_s * self.rate

    def step(self, store: Store, now_s: float, faults: random.Random) -> None:
        if now_s < self.paused_until_s:
            return
        arrived = [event for at_s, event in self.on_the_way if at_s <= now_s]
        self.on_the_way = [late for late in self.on_the_way if late[0] > now_s]
        for event in [*arrived, Tick()]:
            for instruction in self.machine.handle(event, now_s=self.clock(now_s)):
                self.perform(instruction, store, now_s, faults)

    def perform(self, instruction: object, store: Store, now_s: float, faults: random.Random) -> None:
        asked_s, delay_s = self.clock(now_s), faults.choice([0.0, 0.1, 0.1, 1.0])
        match instruction:
            case Lead(epoch):
                self.epochs.append(epoch)
                return
            case Stop():
                self.on_the_way.append((now_s + delay_s, Stopped()))
                return
            case Look():
                answer: object = Looked(store.lease)
            case Take(seen):
                lease = store.take(self.name, seen, now_s)
                answer = Taken(lease, asked_s) if lease else Unanswered("refused")
            case Renew(epoch):
                answer = Renewed(asked_s) if store.renew(self.name, epoch, now_s) else TakenOver("another's")
        if faults.random() < 0.1:  # done, and not answered
            answer = Unanswered("no answer")
        self.on_the_way.append((now_s + delay_s, answer))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_at_no_moment_do_two_rely_on_the_lease_and_after_the_faults_one_does(seed):
    faults, store = random.Random(seed), Store()
    candidates = [Candidate(name, rate=1 + faults.uniform(-0.02, 0.02)) for name in ("a", "b", "c")]
    for step in range(1500):
        now_s = step / 10
        for candidate in faults.sample(candidates, 3):
            if step < 1000 and faults.random() < 0.004:
                candidate.paused_until_s = now_s + faults.choice([1.0, 5.0, 8.0, 30.0])
            candidate.step(store, now_s, faults)
        awake = [one for one in candidates if now_s >= one.paused_until_s]
        assert sum(one.machine.holds_at(one.clock(now_s)) for one in awake) <= 1
    assert sum(one.machine.is_leading for one in candidates) == 1
    epochs = [epoch for one in candidates for epoch in one.epochs]
    assert len(epochs) == len(set(epochs)), "an epoch has one leader"
