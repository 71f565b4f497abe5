import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.linearizability import ABSENT, Kind, Operation, Version, violation

READ, WRITE, CAS = Kind.READ, Kind.WRITE, Kind.COMPARE_AND_SET


def read(called: float, returned: float, generation: int, value: int | None) -> Operation:
    return Operation(client=0, kind=READ, called=called, returned=returned, read=Version(generation, value))


def write(called: float, returned: float, value: int) -> Operation:
    return Operation(client=1, kind=WRITE, called=called, returned=returned, written=value)


def cas(called: float, returned: float, generation: int, value: int, *, refused: bool = False) -> Operation:
    return Operation(
        client=2,
        kind=CAS,
        called=called,
        returned=returned,
        expected_generation=generation,
        written=value,
        refused=refused,
    )


IN_DOUBT = float("inf")

EXPLAINED = {
    "nothing": [],
    "a read beside a write sees the old value": [write(0, 3, 7), read(1, 2, 0, None)],
    "a read beside a write sees the new value": [write(0, 3, 7), read(1, 2, 1, 7)],
    "a write in doubt that took effect": [write(0, IN_DOUBT, 7), read(5, 6, 1, 7)],
    "a write in doubt that never did": [write(0, IN_DOUBT, 7), read(5, 6, 0, None)],
    "a write in doubt that takes effect late": [write(0, IN_DOUBT, 7), read(5, 6, 0, None), read(7, 8, 1, 7)],
    "a compare-and-set in doubt that lost": [cas(0, IN_DOUBT, 0, 7), write(1, 2, 8), read(5, 6, 1, 8)],
    "one of two compare-and-sets wins": [cas(0, 3, 0, 7), cas(1, 4, 0, 8, refused=True), read(5, 6, 1, 7)],
}
VIOLATIONS = {
    "a stale read": [write(0, 1, 7), read(2, 3, 0, None)],
    "a lost write": [write(0, 1, 7), write(2, 3, 8), read(4, 5, 1, 8)],
    "a value that nobody wrote": [write(0, 1, 7), read(2, 3, 1, 9)],
    "a read that goes back in time": [write(0, IN_DOUBT, 7), read(1, 2, 1, 7), read(3, 4, 0, None)],
    "both of two compare-and-sets win": [cas(0, 3, 0, 7), cas(1, 4, 0, 8)],
    "a compare-and-set refused for nothing": [write(0, 1, 7), cas(2, 3, 1, 8, refused=True)],
    "an operation that took effect twice": [write(0, IN_DOUBT, 7), read(1, 2, 2, 7)],
    "an effect before its call": [read(0, 1, 1, 7), write(2, 3, 7)],
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_history_that_one_copy_explains_is_no_violation(name: str) -> None:
    assert violation(EXPLAINED[name]) is None


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_history_that_no_order_explains_is_a_violation(name: str) -> None:
    assert "nothing explains what follows" in (violation(VIOLATIONS[name]) or "")


def test_a_violation_names_the_operations_that_do_not_fit() -> None:
    reason = violation([write(0, 1, 7), read(2, 3, 0, None)])
    assert reason is not None
    assert reason.splitlines() == [
        "1 operations can be put in order, up to Version(generation=1, value=7); nothing explains what follows:",
        "  client 0 [2.000000, 3.000000]: read generation 0, value None",
    ]


def explained_by_trying_every_order(history: Sequence[Operation]) -> bool:
    """The definition itself: some order of all answered and some doubtful operations, and it respects real time."""
    doubtful = [operation for operation in history if operation.is_in_doubt]
    answered = [operation for operation in history if not operation.is_in_doubt]
    for num_chosen in range(len(doubtful) + 1):
        for chosen in itertools.combinations(doubtful, num_chosen):
            for order in itertools.permutations([*answered, *chosen]):
                if any(b.returned < a.called for a, b in itertools.combinations(order, 2)):
                    continue
                version = ABSENT
                for operation in order:
                    after = operation.apply(version)
                    if after is None:
                        break
                    version = after
                else:
                    return True
    return False


times = st.integers(0, 12)
operations = st.one_of(
    st.builds(read, times, times, st.integers(0, 2), st.sampled_from([None, 1, 2])),
    st.builds(write, times, times | st.just(IN_DOUBT), st.sampled_from([1, 2])),
    st.builds(cas, times, times | st.just(IN_DOUBT), st.integers(0, 2), st.sampled_from([1, 2])),
    st.builds(cas, times, times, st.integers(0, 2), st.just(1), refused=st.just(True)),
).filter(lambda operation: operation.called < operation.returned)


@settings(deadline=None)
@given(st.lists(operations, max_size=5))
def test_the_verdict_is_that_of_trying_every_order(history: list[Operation]) -> None:
    assert (violation(history) is None) == explained_by_trying_every_order(history)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_operations_that_took_effect_in_any_order_within_their_time_are_no_violation(seed: int) -> None:
    random_ = random.Random(seed)
    version, history = ABSENT, []
    for at in range(60):
        called, returned = at - random_.random() * 4, at + random_.random() * 4
        match random_.choice(list(Kind)):
            case Kind.READ:
                operation = read(called, returned, *version)
            case Kind.WRITE:
                operation = write(called, random_.choice([returned, IN_DOUBT]), at)
            case Kind.COMPARE_AND_SET:
                generation = random_.choice([version.generation, version.generation + 1])
                operation = cas(called, returned, generation, at, refused=generation != version.generation)
        after = operation.apply(version)
        assert after is not None
        version = after
        history.append(operation)
    random_.shuffle(history)
    assert violation(history) is None
