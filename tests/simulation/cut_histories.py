"""Histories of a set that is written while sites read it at a cut, made from a seed. Pure; time is in milliseconds."""

from dataclasses import dataclass
from random import Random

import numpy as np

from geotrain.view.cut import Cut, Rows

END_MS = 2000.0
MAX_SKEW_MS = 50.0
MAX_REPLICATION_MS = 120.0
MAX_SCAN_MS = 400.0
MAX_GENERATION = 1023  # as in a strongly consistent namespace; then it begins anew
NUM_PARTITIONS_USED = 12

Table = dict[bytes, tuple[int, bytes]]  # digest -> generation and content


@dataclass(frozen=True, slots=True)
class Version:
    """What one write made of a record. content: None where it was deleted. seen_at_ms: when each site had it."""

    generation: int
    content: bytes | None
    last_update_ms: float
    seen_at_ms: list[float]


def read_by_sites(seed: int, num_sites: int = 3, num_keys: int = 40) -> list[Table]:
    """What each site reads of one cut, partition by partition, while writers never rest.

    Clocks differ by up to MAX_SKEW_MS, which is the margin; a write reaches each site at a moment of its own, and the
    next one of that record comes after it has reached all.
    """
    random = Random(seed)
    now_ms = random.uniform(0.3, 0.7) * END_MS
    cut = Cut.before((now_ms + _skew_ms(random)) / 1000, MAX_SKEW_MS / 1000)
    starts_ms = [
        [now_ms + random.uniform(0, MAX_SCAN_MS) for _ in range(NUM_PARTITIONS_USED)] for _ in range(num_sites)
    ]
    tables: list[Table] = [{} for _ in range(num_sites)]
    for _ in range(num_keys):
        partition = random.randrange(NUM_PARTITIONS_USED)
        digest = bytes([partition, 0]) + random.randbytes(18)
        versions = _versions(random, num_sites)
        for site, table in enumerate(tables):
            seen = [version for version in versions if version.seen_at_ms[site] <= starts_ms[site][partition]]
            if seen and seen[-1].content is not None and seen[-1].last_update_ms * 1e6 <= cut.until_ns:
                table[digest] = seen[-1].generation, seen[-1].content
    return tables


def _skew_ms(random: Random) -> float:
    return random.uniform(-MAX_SKEW_MS / 2, MAX_SKEW_MS / 2)


def _versions(random: Random, num_sites: int) -> list[Version]:
    skew_ms = _skew_ms(random)  # of the record's master
    mean_pause_ms = random.choice([20.0, 300.0, 3000.0])
    versions: list[Version] = []
    at_ms, generation = 0.0, random.choice([0, 0, MAX_GENERATION - 2])
    while (at_ms := at_ms + random.expovariate(1 / mean_pause_ms)) < END_MS:
        is_deleted = generation > 0 and random.random() < 0.2
        generation = 0 if is_deleted else generation % MAX_GENERATION + 1
        seen_at_ms = [at_ms + random.uniform(0, MAX_REPLICATION_MS) for _ in range(num_sites)]
        seen_at_ms[random.randrange(num_sites)] = at_ms
        versions.append(Version(generation, None if is_deleted else random.randbytes(8), at_ms + skew_ms, seen_at_ms))
        at_ms = max(seen_at_ms)
    return versions


def rows_of(table: Table) -> Rows:
    """Which rows a table holds."""
    digests = np.frombuffer(b"".join(table), np.uint8).reshape(-1, 20)
    return Rows(digests, np.array([generation for generation, _ in table.values()], np.uint32))
