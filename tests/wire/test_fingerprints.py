import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geotrain.wire.fingerprints import fingerprints
from geotrain.wire.partitions import partition_of

rows = st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(1, 0xFFFF)), unique=True, max_size=20)


def of(some: list[tuple[bytes, int]]) -> np.ndarray:
    digests = np.frombuffer(b"".join(digest for digest, _ in some), np.uint8).reshape(-1, 20)
    return fingerprints(digests, np.array([generation for _, generation in some], np.uint32))


@settings(deadline=None)
@given(some=rows, data=st.data())
def test_the_order_of_rows_does_not_matter(some: list[tuple[bytes, int]], data: st.DataObject) -> None:
    assert np.array_equal(of(some), of(data.draw(st.permutations(some))))


@settings(deadline=None)
@given(some=rows.filter(bool), data=st.data())
def test_one_row_less_or_in_another_generation_changes_its_partition_and_no_other(
    some: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(some) - 1))
    digest, generation = some[index]
    replaced = data.draw(st.sampled_from([[], [(digest, generation + 1)]]))
    changed = [*some[:index], *replaced, *some[index + 1 :]]
    assert np.flatnonzero(of(some) != of(changed)).tolist() == [partition_of(digest)]


@settings(deadline=None)
@given(some=rows)
def test_partitions_can_be_folded_one_after_the_other(some: list[tuple[bytes, int]]) -> None:
    assert np.array_equal(of(some), of(some[::2]) + of(some[1::2]))


@settings(deadline=None)
@given(digest=st.binary(min_size=20, max_size=20), bit=st.integers(0, 159))
def test_a_digest_that_differs_in_any_bit_has_another_fingerprint(digest: bytes, bit: int) -> None:
    other = bytearray(digest)
    other[bit // 8] ^= 1 << bit % 8
    assert of([(digest, 1)]).sum() != of([(bytes(other), 1)]).sum()


def test_two_rows_that_swap_generations_are_told_apart() -> None:
    one, two = bytes(20), bytes(19) + b"\1"
    assert of([(one, 1), (two, 2)]).sum() != of([(one, 2), (two, 1)]).sum()


def test_the_definition_of_a_fingerprint_never_changes() -> None:
    # Sites of different versions compare them, and model states keep them.
    found = of([(bytes(range(20)), 7), (bytes(range(1, 21)), 65535)])
    assert {int(pid): f"{found[pid]:016x}" for pid in np.flatnonzero(found)} == {
        0x100: "a59398be9964677b",
        0x201: "791cc1ef69e464ca",
    }
