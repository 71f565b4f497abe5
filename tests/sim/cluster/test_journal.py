import asyncio
import errno
import os
from itertools import accumulate
from pathlib import Path
from typing import IO

import pytest

from geotrain.errors import ConfigError, DataError
from geotrain.wire.codes import OpCode, ResultCode
from geotrain.wire.messages import encode_op
from geotrain.wire.particles import encode_value
from sim.cluster import journal as module
from sim.cluster.__main__ import _keep_house
from sim.cluster.answers.info import answer
from sim.cluster.journal import MAGIC, Damaged, Entry, Journal, bodies, encode_entry
from sim.cluster.metadata import Metadata
from sim.cluster.records import Record, SetName, make_record, make_tombstone, set_name_of
from sim.cluster.sites.roster import Membership
from sim.cluster.values.refused import Refused
from tests.sim.cluster.in_process import Commands

OWNER = set_name_of("geotrain", b"s")
NO_SET = set_name_of("geotrain", b"")


def digest_of(number: int) -> bytes:
    return number.to_bytes(20, "little")


def record(number: int, generation: int = 1, *, owner: SetName = OWNER, value: str = "v") -> Record:
    bins = {name: encode_op(OpCode.READ, name, *encode_value(value)) for name in (b"a", b"b")}
    return make_record(owner, digest_of(number), b"\x01key", generation, 1_700_000_000_000 + number, bins, void_time=9)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "geotrain")


def reopened_whole(journal: Journal, tmp_path: Path) -> list[Entry]:
    journal.close()
    again = Journal(tmp_path, "geotrain")
    try:
        return list(again.entries())
    finally:
        again.close()


def reopened(journal: Journal, tmp_path: Path) -> list[Record]:
    return [entry.record for entry in reopened_whole(journal, tmp_path)]


def test_the_last_version_of_every_record_comes_back_whole(journal: Journal, tmp_path: Path) -> None:
    kept = [record(1, 2, value="new"), record(2), record(2, owner=NO_SET), make_tombstone(OWNER, digest_of(3), 7, 123)]
    for written in (record(1), record(3, 6), *kept):
        journal.put(NO_SET if not written.set_name else OWNER, written.digest, written)
    assert sorted(reopened(journal, tmp_path)) == sorted(kept)


def test_a_removed_record_does_not_come_back(journal: Journal, tmp_path: Path) -> None:
    for number in (1, 2):
        journal.put(OWNER, digest_of(number), record(number))
    journal.put(OWNER, digest_of(1), None)
    assert reopened(journal, tmp_path) == [record(2)]


def test_what_a_transaction_wrote_stays_beside_the_committed_version_until_it_is_released(
    journal: Journal, tmp_path: Path
) -> None:
    committed, held = record(1), record(1, 2, value="held")
    journal.put(OWNER, digest_of(1), committed)
    journal.put(OWNER, digest_of(1), held, transaction=7, deadline=99)
    journal.put(OWNER, digest_of(2), record(2), transaction=8, deadline=99)
    journal.put(OWNER, digest_of(2), None, transaction=8)
    assert reopened_whole(journal, tmp_path) == [Entry(committed), Entry(held, 7, 99)]


def test_a_file_cut_at_any_byte_keeps_every_entry_before_it(tmp_path: Path) -> None:
    written = [bytes([number]) * number for number in range(6)]
    entries = [encode_entry(body) for body in written]
    whole = MAGIC + b"".join(entries)
    ends = list(accumulate(map(len, entries), initial=len(MAGIC)))
    for size in range(len(MAGIC), len(whole) + 1):
        num_kept = sum(end <= size for end in ends[1:])
        assert list(bodies(whole[:size])) == written[:num_kept]


@pytest.mark.parametrize("num_cut", [1, 12, 13, 40])
def test_a_journal_goes_on_after_an_entry_that_was_cut_short(journal: Journal, tmp_path: Path, num_cut: int) -> None:
    for number in range(3):
        journal.put(OWNER, digest_of(number), record(number))
    journal.close()
    path = tmp_path / "geotrain.records"
    os.truncate(path, path.stat().st_size - num_cut)
    again = Journal(tmp_path, "geotrain")
    again.put(OWNER, digest_of(7), record(7))
    assert reopened(again, tmp_path) == [record(0), record(1), record(7)]


def test_a_byte_changed_anywhere_is_noticed() -> None:
    whole = MAGIC + encode_entry(b"first") + encode_entry(b"second") + encode_entry(b"")
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        with pytest.raises(Damaged) as caught:
            list(bodies(bytes(damaged)))
        assert caught.value.at <= at


def test_a_damaged_file_is_refused_and_left_as_it_is(journal: Journal, tmp_path: Path) -> None:
    journal.put(OWNER, digest_of(1), record(1))
    journal.close()
    path = tmp_path / "geotrain.records"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = path.read_bytes()
    with pytest.raises(DataError, match=rf"is damaged at byte {len(MAGIC)}"):
        Journal(tmp_path, "geotrain")
    assert path.read_bytes() == before


def test_two_clusters_can_not_share_a_folder(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is in use by another cluster"):
        Journal(tmp_path, "geotrain")


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^data_dir: \S+/file/inner: Not a directory"):
        Journal(tmp_path / "file" / "inner", "geotrain")


def test_a_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "geotrain.records").mkdir()
    with pytest.raises(ConfigError, match=r"^data_dir: \S+/geotrain.records: Is a directory"):
        Journal(tmp_path, "geotrain")


def test_a_disk_that_is_full_at_the_start_is_said_and_costs_no_record(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal.put(OWNER, digest_of(1), record(1))
    journal.close()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match=r"^data_dir: \S+/geotrain.records: No space left on device"):
            Journal(tmp_path, "geotrain")
    assert reopened(Journal(tmp_path, "geotrain"), tmp_path) == [record(1)]


def test_truncated_records_are_gone_from_the_file_when_it_is_opened_again(journal: Journal, tmp_path: Path) -> None:
    for number in range(4):
        journal.put(OWNER, digest_of(number), record(number))
        journal.put(NO_SET, digest_of(number), record(number, owner=NO_SET))
    journal.put(OWNER, digest_of(0), record(0, 2), transaction=7, deadline=8)
    membership = Membership(1, {"A1": 1})
    luts = {b"s": record(2).last_update_ms, None: record(1).last_update_ms}
    journal.put_metadata(Metadata(1, membership, membership, {}, luts))
    kept = [record(2), record(3), *(record(number, owner=NO_SET) for number in (1, 2, 3))]
    entries = reopened_whole(journal, tmp_path)
    assert sorted(entry.record for entry in entries if not entry.transaction) == sorted(kept)
    assert [entry.record for entry in entries if entry.transaction] == [record(0, 2)]


def test_the_file_stays_small_however_often_a_record_changes(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_COMPACTION_BYTES", 10_000)
    journal.close()
    journal = Journal(tmp_path, "geotrain")
    sizes = []
    for generation in range(1, 1001):
        journal.put(OWNER, digest_of(1), record(1, generation))
        sizes.append((tmp_path / "geotrain.records").stat().st_size)
    assert max(sizes) < 10_000
    assert reopened(journal, tmp_path) == [record(1, 1000)]


class FullDisk:
    """A file that takes the first bytes of an entry only."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.truncate, self.close = file.truncate, file.close

    def write(self, data: bytes) -> int:
        return self._file.write(data[:20])


def test_a_write_for_which_the_disk_has_no_room_is_refused_and_leaves_no_trace(
    journal: Journal, tmp_path: Path
) -> None:
    journal.put(OWNER, digest_of(1), record(1))
    roomy = journal._file
    journal._file = FullDisk(roomy)  # type: ignore[assignment]
    with pytest.raises(Refused) as caught:
        journal.put(OWNER, digest_of(2), record(2))
    assert caught.value.code == ResultCode.OUT_OF_SPACE
    journal._file = roomy
    journal.put(OWNER, digest_of(3), record(3))
    assert reopened(journal, tmp_path) == [record(1), record(3)]


class BrokenDisk(FullDisk):
    """A full disk on which a file can't even be made shorter."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.truncate = self._refuse

    def _refuse(self, size: int | None = None) -> int:
        raise OSError(errno.EIO, "broken")


def test_a_disk_that_fails_twice_still_refuses_cleanly_and_leaves_no_torn_entry(
    journal: Journal, tmp_path: Path
) -> None:
    journal.put(OWNER, digest_of(1), record(1))
    roomy = journal._file
    journal._file = BrokenDisk(roomy)  # type: ignore[assignment]
    for number in (2, 3):
        with pytest.raises(Refused) as caught:
            journal.put(OWNER, digest_of(number), record(number))
        assert caught.value.code == ResultCode.OUT_OF_SPACE
    journal._file = roomy
    journal.put(OWNER, digest_of(4), record(4))
    assert reopened(journal, tmp_path) == [record(1), record(4)]


def test_a_journal_that_can_not_be_compacted_goes_on_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "MIN_COMPACTION_BYTES", 1000)
    journal = Journal(tmp_path, "geotrain")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for generation in range(1, 101):
            journal.put(OWNER, digest_of(1), record(1, generation))
        assert not (tmp_path / "geotrain.compacted").exists()
    assert (tmp_path / "geotrain.records").stat().st_size > 10_000
    for generation in range(101, 400):
        journal.put(OWNER, digest_of(1), record(1, generation))
    assert (tmp_path / "geotrain.records").stat().st_size < 10_000
    assert reopened(journal, tmp_path) == [record(1, 399)]


def test_housekeeping_goes_on_and_truncating_is_refused_while_the_disk_is_full(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(nsup_period_s=1)
    commands.now_ms = 1_600_000_000_000
    commands.put({"a": 1}, ttl=1)
    cluster, node = commands.cluster, commands.cluster.nodes[0]
    cluster.keep_in(journal)
    roomy = journal._file
    journal._file = FullDisk(roomy)  # type: ignore[assignment]
    assert answer(cluster, node, "truncate:namespace=test;set=s").startswith("ERROR:8:")

    seconds = iter(range(3))

    async def pass_second(_: float) -> None:
        if next(seconds, None) == 1:
            assert cluster.count(node, b"s").num_records == 1
            journal._file = roomy
        elif cluster.count(node, b"s").num_records == 0:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", pass_second)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_keep_house(cluster))
    assert cluster.count(node, b"s").num_records == 0
