"""Every seed another history of a model's states, against the simulated cluster under strong consistency.

SEEDS=500 plays more of them, from FIRST on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest

from geotrain.states import collect, publish, tensors
from geotrain.states.manifest import ALIASES, MANIFESTS, TENSORS
from geotrain.view import retry
from geotrain.view.connect import View, connect
from tests.conftest import ClusterUnderTest
from tests.simulation.states.reader import REST, STOP, read
from tests.simulation.states.world import Violation, World, until
from tests.states.clock import Clock, aging_cluster, follow
from tests.view.views import view_config

NUM_SEEDS = int(os.environ.get("SEEDS", "12"))
FIRST = int(os.environ.get("FIRST", "0"))
NUM_READERS = 2
SEEDS_TO_FIND = 60
CUT_EVERY = 10  # of so many seeds, in one a site is cut off: it takes seconds


@pytest.fixture(scope="module")
def aging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ClusterUnderTest, Clock]]:
    with aging_cluster(tmp_path_factory.mktemp("aging")) as cluster_and_clock:
        yield cluster_and_clock


@pytest.fixture
def clock(aging: tuple[ClusterUnderTest, Clock], monkeypatch: pytest.MonkeyPatch) -> Clock:
    follow(aging[1], monkeypatch)
    monkeypatch.setattr(tensors, "PARTS_PER_TRIP", 1)  # so that much can happen between them
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    return aging[1]


@pytest.fixture(scope="module")
def view(aging: tuple[ClusterUnderTest, Clock]) -> Iterator[View]:
    with connect(view_config(aging[0], ride_through_s=60.0, deadline_s=5.0)) as connected:
        yield connected


class Readers:
    """Processes that read all the time. seen: of the seed, what each saw, in order."""

    def __init__(self, aging: tuple[ClusterUnderTest, Clock]) -> None:
        context = get_context("spawn")
        self._seed: Any = context.Value("i", REST)
        self._pipes: list[Connection] = []
        self.seen: list[list[int]] = []
        for number in range(NUM_READERS):
            ours, theirs = context.Pipe(duplex=False)
            config = view_config(aging[0], rack=aging[0].rack_ids[number], deadline_s=5.0)
            context.Process(target=read, args=(config, self._seed, theirs), daemon=True).start()
            self._pipes.append(ours)
        for pipe in self._pipes:
            pipe.recv()  # it is connected

    def turn_to(self, seed: int) -> None:
        """From here on they read that seed's model, or rest, or stop."""
        self._seed.value = seed
        self.seen = [[] for _ in self._pipes]

    def saw(self, version: int) -> bool:
        """Whether each has come to this version, and seen nothing wrong before. Raises Violation."""
        for pipe, seen in zip(self._pipes, self.seen, strict=True):
            while pipe.poll():
                seed, found, wrong = pipe.recv()
                if wrong:
                    raise Violation(f"a reader of seed {seed} at version {found}: {wrong}")
                if seed == self._seed.value:
                    seen.append(found)
        return all(seen and seen[-1] == version for seen in self.seen)


@pytest.fixture(scope="module")
def readers(aging: tuple[ClusterUnderTest, Clock]) -> Iterator[Readers]:
    readers = Readers(aging)
    yield readers
    readers.turn_to(STOP)


def play(view: View, clock: Clock, seed: int, readers: Readers | None = None) -> World:
    """Plays a seed's history on an empty namespace. Raises Violation with the story that led to it."""
    for set_name in (TENSORS, MANIFESTS, ALIASES):
        view.client.truncate(view.config.namespace, set_name, 0)
    world = World(view, clock, seed, cuts=readers is not None and seed % CUT_EVERY == 0)
    try:
        if readers:
            readers.turn_to(seed)
        version = world.run()
        if readers:
            until(lambda: readers.saw(version), f"every reader comes to version {version}")
            for seen in readers.seen:
                check_order(seen, world.went_back_to)
    except Violation as violation:
        raise Violation("\n".join([f"seed {seed}: {violation}", *world.story])) from None
    return world


def check_order(seen: Sequence[int], went_back_to: set[int]) -> None:
    """Raises Violation where a reader went back to a version that nobody rolled back to."""
    for before, after in pairwise(seen):
        if after < before and after not in went_back_to:
            raise Violation(f"a reader went back from version {before} to {after}: {seen}")


@pytest.mark.parametrize("first", range(FIRST, FIRST + NUM_SEEDS, 6))
def test_readers_see_whole_states_in_order_and_nothing_that_is_needed_is_collected(
    view: View, clock: Clock, readers: Readers, first: int
) -> None:
    for seed in range(first, min(first + 6, FIRST + NUM_SEEDS)):
        play(view, clock, seed, readers)
    readers.turn_to(REST)


def test_the_histories_have_what_is_worth_checking(view: View, clock: Clock) -> None:
    story = "\n".join(line for seed in range(16) for line in play(view, clock, seed).story)
    for what in ("killed a write", "killed after a write", "no answer, and is done later", "was removed", "go back"):
        assert what in story
    for what in ("committed under epoch", "removed: ['m", "given up: ['m", ": a leader after epoch"):
        assert story.count(what) > 1


def test_a_site_is_cut_off_in_the_middle_of_publishing(view: View, clock: Clock, readers: Readers) -> None:
    def is_amid(seed: int) -> bool:
        return bool({"lead", "publish", "publish again"} & amid(play(view, clock, seed, readers).story, "cut off"))

    assert any(map(is_amid, range(0, SEEDS_TO_FIND, CUT_EVERY)))
    readers.turn_to(REST)


def amid(story: Sequence[str], what: str) -> set[str]:
    """The acts in whose middle something happened."""
    begun: dict[int, str] = {}
    found = set()
    for line in story:
        text = line.partition(" s ")[2]
        depth = len(text) - len(text.lstrip())
        begun[depth] = text.strip()
        if text.strip() == what:
            found.add(begun.get(depth - 2, ""))
    return found


def without_grace(patch: pytest.MonkeyPatch) -> None:
    """A collector removes whatever nobody names at the moment."""
    for name in ("idle_records", "remove_idle"):
        original = getattr(collect, name)
        at = 2 if name == "idle_records" else 3
        patch.setattr(
            collect,
            name,
            lambda *arguments, original=original, at=at, **options: original(*arguments[:at], 0.0, **options),
        )


def without_aliases(patch: pytest.MonkeyPatch) -> None:
    """A collector keeps the newest, whatever aliases and pins say."""
    patch.setattr(collect, "retention", lambda head, num_newest: {key: ["new"] for key in head.versions[-num_newest:]})


def without_renewal(patch: pytest.MonkeyPatch) -> None:
    """A publisher takes parts that are there as they are, however old."""
    patch.setattr(publish, "renew", lambda view, set_name, parts, idle_s: view.exist(set_name, parts))


@pytest.mark.parametrize("plant", [without_grace, without_aliases, without_renewal])
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], view: View, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    def is_found(seed: int) -> bool:
        try:
            play(view, clock, seed)
        except Violation:
            return True
        return False

    assert any(map(is_found, range(SEEDS_TO_FIND)))
