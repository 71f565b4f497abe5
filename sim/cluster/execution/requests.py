"""What a command on one record is, and what it ends with."""

from typing import NamedTuple

from geotrain.wire.batches import BatchRow
from geotrain.wire.messages import Message


class Outcome(NamedTuple):
    """What a command ended with: the reply without its envelope."""

    result_code: int
    generation: int = 0
    num_ops: int = 0
    ops: bytes = b""
    void_time: int = 0
    num_fields: int = 0
    fields: bytes = b""


Request = Message | BatchRow
"""A command for one record, alone or as a row of a batch."""
