"""One join from facts to rows: what is known of the sources, what the planner makes of it, blocks side by side."""

import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import ray

from geotrain.tasks.config import JoinStep, TaskConfig
from geotrain.view.connect import View
from geotrain.view.cut import Cut
from geotrain.view.lookup import GENERATION, lookup
from geotrain.view.sizes import set_sizes
from geotrain.wire.partitions import NUM_PARTITIONS
from site_agent.datasets import LocalDataset
from site_agent.join.buckets import BucketFile
from site_agent.join.fetch import put
from site_agent.join.planner import Decision, Plan, Rates, Site, Source, plan_steps
from site_agent.join.sources import Part, PartRead, ReadSet, check_columns, not_its_key, ranges
from site_agent.join.stages import Block, Stage, shuffle
from site_agent.join.steps import number_rows, run_steps

logger = logging.getLogger(__name__)

MAX_BLOCK_BYTES = 128 << 20
TASK_BYTES = 1 << 20  # to join fewer rows takes no longer than to start a task


@dataclass(frozen=True, slots=True)
class Joined:
    """The training set: Ray references to blocks of joined rows. ROW is a row's place among the local rows."""

    blocks: list[ray.ObjectRef]
    num_rows: int


def num_blocks(num_bytes: int, num_cpus: int) -> int:
    """Into how many blocks a join is cut, by the bytes of its biggest source: a CPU each, more where they get big."""
    return min(NUM_PARTITIONS, max(num_cpus, -(-num_bytes // MAX_BLOCK_BYTES)))


def learn(rates: Rates, read: PartRead, num_at_once: int) -> Rates:
    """The rates with what tasks, some at once, took to read."""
    return rates.measure("scan", read.num_rows, read.seconds / num_at_once)


@dataclass(slots=True, kw_only=True)
class Join:
    """One join of a task, at one cut.

    local: the site's datasets by name. read: sets that were read already, by name; others are read as the plan says.
    cache_dir: where bucketed rows are kept. num_cpus: of the site's Ray cluster. max_broadcast_bytes: what every task
    may be given whole. rates: how fast this site is; better known after the join.
    """

    task: TaskConfig
    local: Mapping[str, LocalDataset]
    view: View
    cut: Cut | None
    read: Mapping[str, ReadSet]
    cache_dir: Path
    num_cpus: int
    max_broadcast_bytes: int
    rates: Rates = field(default_factory=Rates)
    _rows: pl.DataFrame = field(init=False)
    _num_tasks: int = field(init=False)
    _whole: dict[str, list[ray.ObjectRef]] = field(default_factory=dict)
    _laid: dict[Hashable, list[list[Block]]] = field(default_factory=dict)

    def run(self) -> Joined:
        """Plan the join, say why, and do it. Raises GeotrainError."""
        for dataset in self.local.values():
            dataset.check_unchanged()
        self._rows = number_rows(self.task, self.local[self.task.rows.dataset].frame)
        planned = list(zip(self.task.join, self._plan(), strict=True))
        for reason in dict.fromkeys(decision.reason for _, decision in planned):
            logger.info("%s", reason)
        if self._rows.estimated_size() < TASK_BYTES and all(decision.plan is Plan.LOOKUP for _, decision in planned):
            return self._join_here()
        blocks, shuffled_by = self._blocks_of_rows(planned), None
        stage = Stage(self.task)
        for step, decision in planned:
            if decision.plan is Plan.SHUFFLE and list(step.by) != shuffled_by:
                if stage.steps:
                    blocks = self._run(stage, blocks).blocks
                shuffled_by = list(step.by)
                blocks = shuffle(blocks, shuffled_by, self._num_tasks)
                stage = Stage(self.task)
            # What is given whole is the same whatever it is joined by.
            name = (step.source, decision.plan, *(step.by.items() if decision.plan is not Plan.BROADCAST else ()))
            stage.add(step, name, self._source(name, step, decision.plan))
        return self._run(stage, blocks)

    def _join_here(self) -> Joined:
        """Join few rows with the records of their keys, without a task."""
        keyed = {(step.source, *step.by.items()): step for step in self.task.join}
        found = {name: pl.DataFrame(self._look_up(step)) for name, step in keyed.items()}
        steps = [(step, found[step.source, *step.by.items()]) for step in self.task.join]
        joined = run_steps(self.task, self._rows, steps)
        return Joined([put(joined.to_arrow())], len(joined))

    def _run(self, stage: Stage, rows: list[ray.ObjectRef]) -> Joined:
        blocks, num_rows, reads = stage.run(rows)
        for name, read in reads.items():
            self._note(name, read)
        return Joined(blocks, num_rows)

    def _plan(self) -> list[Decision]:
        sources = self._facts()
        biggest = max((source.num_bytes for source in sources.values()), default=0)
        # Sets that were read lie in so many blocks already.
        lie_in = [len(read.blocks) for read in self.read.values()]
        self._num_tasks = lie_in[0] if lie_in else num_blocks(biggest, self.num_cpus)
        site = Site(
            num_rows=len(self._rows),
            num_cpus=self.num_cpus,
            num_tasks=self._num_tasks,
            max_broadcast_bytes=self.max_broadcast_bytes,
            rates=self.rates,
        )
        return plan_steps(self.task, sources, site)

    def _facts(self) -> dict[int, Source]:
        """What is known of each step's source."""
        sizes: dict[str, tuple[int, int]] = {
            name: (read.read.num_rows, read.read.num_bytes) for name, read in self.read.items()
        }
        for name, dataset in self.local.items():
            sizes[name] = (len(dataset.frame), int(dataset.frame.estimated_size()))
        if unread := {step.source for step in self.task.join} - sizes.keys():
            sizes |= set_sizes(self.view, sorted(unread))
        facts = {}
        for number, step in enumerate(self.task.join):
            key = self.task.key_column(step)
            facts[number] = Source(
                num_rows=sizes[step.source][0],
                num_bytes=sizes[step.source][1],
                num_keys=self._rows[key].drop_nulls().n_unique() if key else None,
                is_local=step.source in self.local,
                must_be_read=step.source in self.read,
                is_bucketed=key is not None and self._bucket_file(step, key).path.exists(),
            )
        return facts

    def _bucket_file(self, step: JoinStep, column: str) -> BucketFile:
        rows = self.local[self.task.rows.dataset]
        return BucketFile(self.cache_dir, rows.name, rows.version, step.source, column)

    def _blocks_of_rows(self, planned: Sequence[tuple[JoinStep, Decision]]) -> list[ray.ObjectRef]:
        """The local rows: by the partitions of the set that they shall lie beside, or as they come."""
        for step, decision in planned:
            if decision.plan is Plan.CO_PARTITIONED:
                buckets = self._bucket_file(step, self._key(step)).open(self._rows)
                return [put(buckets.part(some)) for some in ranges(self._num_tasks)]
        table, size = self._rows.to_arrow(), -(-len(self._rows) // self._num_tasks)
        return [put(table.slice(i * size, size).combine_chunks()) for i in range(self._num_tasks)]

    def _source(self, name: Hashable, step: JoinStep, plan: Plan) -> list[list[Block]]:
        """For each task, the blocks of the step's source that it needs."""
        if name not in self._laid:
            if plan is Plan.LOOKUP:
                self._laid[name] = [[put(self._look_up(step))]] * self._num_tasks
            elif plan is Plan.BROADCAST:
                self._laid[name] = [list(self._blocks_of(step.source))] * self._num_tasks
            elif plan is Plan.SHUFFLE:
                by = list(step.by.values())
                self._laid[name] = [[b] for b in shuffle(self._blocks_of(step.source), by, self._num_tasks)]
            elif step.source in self.read:
                self._laid[name] = [[block] for block in self.read[step.source].blocks]
            else:
                part = self._part(step.source, by_key=True)
                self._laid[name] = [[replace(part, partitions=some)] for some in ranges(self._num_tasks)]
        return self._laid[name]

    def _blocks_of(self, name: str) -> list[ray.ObjectRef]:
        """All blocks of a source, read or put into the object store once."""
        if name not in self._whole:
            if name in self.local:
                self._whole[name] = [put(self.local[name].frame.to_arrow())]
            elif name in self.read:
                self._whole[name] = self.read[name].blocks
            else:
                read = ReadSet.of(self._part(name), self._num_tasks)
                self._note(name, read.read)
                self._whole[name] = read.blocks
        return self._whole[name]

    def _part(self, name: str, *, by_key: bool = False) -> Part:
        return Part(self.view.config, name, self.task.view[name], self.cut, by_key=by_key)

    def _look_up(self, step: JoinStep) -> pa.Table:
        """The records whose keys the local rows hold."""
        view_set, ours = self.task.view[step.source], self._key(step)
        assert view_set.key is not None  # the task's checks saw to it
        asked = self._rows[ours].drop_nulls().unique().to_arrow()
        start_s = time.perf_counter()
        found = lookup(self.view, step.source, asked, view_set.columns, cut=self.cut)
        self.rates = self.rates.measure("lookup", len(asked), time.perf_counter() - start_s)
        is_there = found[GENERATION].is_valid()
        found, asked = found.filter(is_there), asked.filter(is_there.combine_chunks())
        if not pl.Series(asked).equals(pl.Series(found[view_set.key])):
            raise not_its_key(step.source, view_set.key)
        if not len(asked):
            logger.warning("join %s: none of the keys in %s is in the set", step.source, ours)
        return found.drop_columns([GENERATION])

    def _key(self, step: JoinStep) -> str:
        key = self.task.key_column(step)
        assert key is not None  # or the planner would not have decided so
        return key

    def _note(self, name: str, read: PartRead) -> None:
        check_columns(name, read, self.cut)
        self.rates = learn(self.rates, read, min(self.num_cpus, self._num_tasks))
