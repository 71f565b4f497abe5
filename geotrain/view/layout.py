"""The columns of a scan or a look-up: what is asked of the server, and its answers as Arrow has them.

Knows no sockets.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from geotrain.view.columns import particle_of, to_arrow
from geotrain.wire.codes import DIGEST_BYTES, EPOCH_S
from geotrain.wire.columnar import Batch
from geotrain.wire.packing import unpack

DIGEST, GENERATION, TTL, KEY = "__digest", "__generation", "__ttl", "__key"
METADATA: dict[str, pa.DataType] = {DIGEST: pa.binary(DIGEST_BYTES), GENERATION: pa.int32(), TTL: pa.int64()}
POSITION = "__position_of_key"  # no bin has so long a name
_TYPES = {**METADATA, POSITION: pa.uint32()}


class Layout:
    """columns: bin name -> Arrow type; a stored key, where it is wanted, among them as `__key`. metadata: of METADATA,
    and of a look-up POSITION.

    schema: of the batches. bins: name -> type on the wire. key: type of the stored key on the wire.
    """

    def __init__(self, columns: Mapping[str, pa.DataType], metadata: Sequence[str]) -> None:
        fields = {**columns, **{name: _TYPES[name] for name in metadata}}
        self.schema = pa.schema(fields)
        particles = {name: particle_of(of) for name, of in columns.items()}
        self.key = particles.pop(KEY, None)
        self.bins = particles
        self.with_digests = DIGEST in metadata
        self.with_positions = POSITION in metadata

    def arrange(self, batch: Batch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Returns the batch in the schema, and how many lists or maps of a column were not of its type."""
        found: dict[str, pa.Array] = dict(zip(self.bins, batch.columns, strict=True))
        found |= {KEY: batch.key, DIGEST: batch.digests, POSITION: batch.positions}
        found[GENERATION] = batch.generations.view(pa.int32())
        if TTL in self.schema.names:
            found[TTL] = _time_to_live(batch.void_times)
        mismatches = {}
        for field in self.schema:
            if pa.types.is_nested(field.type):
                values = (None if packed is None else unpack(packed) for packed in found[field.name].to_pylist())
                found[field.name], mismatches[field.name] = to_arrow(values, field.type)
            elif pa.types.is_timestamp(field.type):
                found[field.name] = found[field.name].view(field.type)
        arrays = [found[name] for name in self.schema.names]
        if not arrays:  # rows without columns are counted all the same
            rows = pa.Array.from_buffers(pa.struct([]), batch.num_rows, [None])
            return pa.RecordBatch.from_struct_array(rows), {}
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema), mismatches


def _time_to_live(void_times: pa.Array) -> pa.Array:
    """Seconds from now to each void-time; null for never."""
    at = void_times.to_numpy().astype(np.int64)
    return pa.array(at - (int(time.time()) - EPOCH_S), pa.int64(), mask=at == 0)
