"""The order in which a server checks a write: of all that is wrong with one, the first thing is what it answers."""

import msgpack
import pytest

from geotrain.wire import codes
from geotrain.wire.codes import Field, OpCode, ResultCode
from geotrain.wire.messages import Message, operation
from geotrain.wire.partitions import partition_of
from tests.sim.cluster.in_process import DIGEST, Commands
from tests.sim.cluster.test_transactions import DEADLINE

OWN, OTHER = 7, 8


def in_transaction(number: int) -> dict[int, bytes]:
    """The fields that make a write part of a transaction."""
    deadline = DEADLINE.to_bytes(4, "little")
    return {Field.TRANSACTION_ID: number.to_bytes(8, "little"), Field.TRANSACTION_DEADLINE: deadline}


KEY, OTHER_KEY = b"\x03kept", b"\x03other"
FALSE: bytes = msgpack.packb([1, [81, 3, "s"], "\x03another"])
FLAGS = {
    "update only": {"info3": codes.INFO3_UPDATE_ONLY},
    "replace only": {"info3": codes.INFO3_REPLACE_ONLY},
    "create only": {"info2": codes.INFO2_CREATE_ONLY},
    "delete": {"info2": codes.INFO2_DELETE | codes.INFO2_DURABLE_DELETE},
    "locking only": {"info4": codes.INFO4_ON_LOCKING_ONLY},
    "generation": {"info2": codes.INFO2_GENERATION_EQUAL},
}
FIELDS: dict[str, dict[int, bytes]] = {
    "own": in_transaction(OWN),
    "version": {Field.RECORD_VERSION: b"unheard"},
    "filter": {Field.FILTER: FALSE},
    "key": {Field.KEY: OTHER_KEY},
}


def write(*wrongs: str) -> Message:
    """A write of one bin, with these things wrong with it or asked for."""
    message = Message(info2=codes.INFO2_WRITE, generation=99, ops=[operation(OpCode.WRITE, "s", "new")])
    for wrong in wrongs:
        for name, bits in FLAGS.get(wrong, {}).items():
            setattr(message, name, getattr(message, name) | bits)
        message.fields |= FIELDS.get(wrong, {})
    if "operation" in wrongs:
        message.ops = [operation(OpCode.INCREMENT, "s", 1)]
    if "delete" in wrongs:
        message.ops = []
    return message


@pytest.mark.parametrize(
    ("state", "wrongs", "code"),
    [
        ("unavailable", "update only, generation, filter, key, operation", ResultCode.UNAVAILABLE),
        ("absent, held by another", "update only, generation", ResultCode.NOT_FOUND),
        ("absent, held by another", "replace only, generation", ResultCode.NOT_FOUND),
        ("absent, held by another", "delete, generation", ResultCode.NOT_FOUND),
        ("absent, held by another", "generation", ResultCode.BLOCKED),
        ("absent", "generation, operation", ResultCode.GENERATION),
        ("held by another", "create only, own, version, generation, filter, key", ResultCode.BLOCKED),
        ("held by another", "update only, generation, filter, key", ResultCode.BLOCKED),
        ("held by another", "delete, generation, filter, key", ResultCode.BLOCKED),
        ("present", "own, version, create only, generation", ResultCode.VERSION_MISMATCH),
        ("held by own", "own, create only, locking only, generation, filter, key", ResultCode.EXISTS),
        ("held by own", "own, locking only, generation, filter, key, operation", ResultCode.ALREADY_LOCKED),
        ("present", "generation, filter, key, operation", ResultCode.GENERATION),
        ("present", "delete, generation, filter, key", ResultCode.GENERATION),
        ("present", "filter, key, operation", ResultCode.FILTERED_OUT),
        ("present", "delete, filter, key", ResultCode.FILTERED_OUT),
        ("present", "key, operation", ResultCode.KEY_MISMATCH),
        ("present", "delete, key", ResultCode.KEY_MISMATCH),
        ("present", "operation", ResultCode.BIN_TYPE),
        ("present", "own, update only", ResultCode.OK),
        ("present", "delete", ResultCode.OK),
    ],
)
def test_the_first_of_all_that_is_wrong_is_answered(state: str, wrongs: str, code: ResultCode) -> None:
    commands = Commands()
    if "absent" not in state:
        kept = Message(info2=codes.INFO2_WRITE, fields={Field.KEY: KEY}, ops=[operation(OpCode.WRITE, "s", "old")])
        assert commands.do(kept).result_code == ResultCode.OK
    if "held" in state:
        held = write()
        held.fields |= in_transaction(OWN if "own" in state else OTHER)
        assert commands.do(held).result_code == ResultCode.OK
    if state == "unavailable":
        commands.cluster.nodes[0].view.unavailable = frozenset({partition_of(DIGEST)})
    assert commands.do(write(*wrongs.split(", "))).result_code == code
