"""Rows of a batch that are alike are answered as each of them would be alone."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire import codes
from geotrain.wire.batches import BatchRow, encode_batch
from geotrain.wire.codes import Field, OpCode
from geotrain.wire.messages import Message, operation
from sim.cluster.execution import batch as batch_module
from sim.cluster.execution.batch import batch
from tests.sim.cluster.in_process import NAMESPACE, Commands

DIGESTS = [bytes([n, n]) + bytes(18) for n in range(6)]


@pytest.fixture(scope="module", params=[True, False], ids=["strong", "available"])
def commands(request: pytest.FixtureRequest) -> Iterator[Commands]:
    """Records of several shapes, one that expires, a tombstone, and one that is not there."""
    commands = Commands(strong_consistency=request.param)
    commands.put({"a": 1, "b": "text", "c": 2.5}, digest=DIGESTS[0])
    commands.put({"c": 2.5, "a": 1}, digest=DIGESTS[1])
    commands.put({"z": 1}, digest=DIGESTS[2])
    commands.put({"a": 1}, ttl=1000, digest=DIGESTS[3])
    commands.put({"a": 1}, digest=DIGESTS[4])
    commands.remove(durable=request.param, digest=DIGESTS[4])
    return commands


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_row_is_answered_as_if_it_were_the_only_one_of_its_kind(data: st.DataObject, commands: Commands) -> None:
    info1 = data.draw(st.sampled_from([codes.INFO1_READ, codes.INFO1_READ | codes.INFO1_GET_ALL, 0x21]))
    info3 = data.draw(st.sampled_from([0, 0x40, 0x80, 0xC0]))
    names = data.draw(st.lists(st.sampled_from("abcz"), unique=True))
    set_name = data.draw(st.sampled_from([b"s", b"", b"other"]))
    fields = {Field.NAMESPACE: data.draw(st.sampled_from([NAMESPACE.encode(), b"no"])), Field.SET: set_name}
    ops = [operation(OpCode.READ, name) for name in names]
    rows = [BatchRow(n, digest, info1, 0, info3, 0, 0, 0, fields, ops) for n, digest in enumerate(DIGESTS)]
    request = Message(info1=codes.INFO1_BATCH, fields={Field.BATCH: encode_batch(rows)})

    def answers() -> tuple[bytes, dict[object, int]]:
        node = commands.cluster.nodes[0]
        node.counters.clear()
        sent = b"".join(c.frames for c in batch(commands.cluster, node, request, commands.now_ms, 0.0))
        return sent, dict(node.counters)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batch_module, "answer_of", lambda *_: None)
        one_by_one = answers()
    assert answers() == one_by_one
