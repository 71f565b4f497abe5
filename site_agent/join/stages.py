"""Ray tasks that join: each has a block of rows, and the blocks of sources that these can meet. Decides nothing."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice

import polars as pl
import pyarrow as pa
import ray

from geotrain.tasks.config import JoinStep, TaskConfig
from site_agent.join.fetch import fetch
from site_agent.join.sources import Part, PartRead
from site_agent.join.steps import run_steps

Block = ray.ObjectRef | Part
Reads = dict[str, PartRead]


@ray.remote(num_returns=2)
def _join_block(
    task: TaskConfig, steps: list[tuple[JoinStep, int]], counts: list[int], rows: pa.Table, *blocks: pa.Table | Part
) -> tuple[pa.Table, tuple[int, Reads]]:
    """counts: how many of `blocks` each source has. The number in `steps` is that of the step's source."""
    reads: Reads = {}
    tables, remaining = [], iter(blocks)
    for number, count in enumerate(counts):
        key = next(task.key_column(step) for step, source in steps if source == number)
        parts = []
        for block in islice(remaining, count):
            if isinstance(block, Part):
                # The rows lie where their keys do, or they would not meet these partitions.
                table, reads[block.set_name] = block.read(rows[key] if key else None)
                parts.append(table)
            else:
                parts.append(block)
        tables.append(pl.DataFrame(pa.concat_tables(parts)))
    joined = run_steps(task, pl.DataFrame(rows), [(step, tables[number]) for step, number in steps])
    return joined.to_arrow(), (len(joined), reads)


@ray.remote
def _split(columns: list[str], num_parts: int, *blocks: pa.Table) -> list[pa.Table]:
    """The rows of some blocks, by the hash of some columns. All processes of a site hash alike: they run one polars."""
    frame = pl.DataFrame(pa.concat_tables(blocks))
    placed = frame.select(pl.struct(columns).hash() % num_parts).to_series()
    return [frame.filter(placed == number).to_arrow() for number in range(num_parts)]


@ray.remote
def _concatenate(*blocks: pa.Table) -> pa.Table:
    return pa.concat_tables(blocks)


def shuffle(blocks: Sequence[ray.ObjectRef], columns: list[str], num_parts: int) -> list[ray.ObjectRef]:
    """Return the rows in as many blocks, rows with equal values in the columns in the same one."""
    if num_parts == 1:
        return [_concatenate.remote(*blocks)]
    split = _split.options(num_returns=num_parts)
    pieces = [split.remote(columns, num_parts, block) for block in blocks]
    return [_concatenate.remote(*meeting) for meeting in zip(*pieces, strict=True)]


@dataclass(slots=True)
class Stage:
    """Steps that follow each other in the same tasks, each on its own block of rows."""

    task: TaskConfig
    steps: list[tuple[JoinStep, int]] = field(default_factory=list)
    sources: dict[Hashable, list[list[Block]]] = field(default_factory=dict)

    def add(self, step: JoinStep, name: Hashable, blocks: list[list[Block]]) -> None:
        """Add a step. blocks: of its source, for each task; steps that name the same source read it once."""
        self.sources.setdefault(name, blocks)
        self.steps.append((step, list(self.sources).index(name)))

    def run(self, rows: Sequence[ray.ObjectRef]) -> tuple[list[ray.ObjectRef], int, Reads]:
        """Run the steps on blocks of rows. Returns the joined blocks, how many rows they are, and what tasks read."""
        joined, figures = [], []
        for number, block in enumerate(rows):
            own = [blocks[number] for blocks in self.sources.values()]
            flat = [part for blocks in own for part in blocks]
            result, figure = _join_block.remote(self.task, self.steps, [len(blocks) for blocks in own], block, *flat)
            joined.append(result)
            figures.append(figure)
        num_rows, reads = 0, []
        for count, read in fetch(figures):
            num_rows += count
            reads.append(read)
        totals = {name: reduce(PartRead.add, (read[name] for read in reads)) for name in reads[0]}
        return joined, num_rows, totals
