"""Many records at once: each is written, whatever becomes of the answers, or it is said that one is not."""

from collections.abc import Iterator

import pytest

from geotrain.errors import ViewError
from geotrain.view.connect import View, connect
from tests.conftest import ClusterUnderTest
from tests.view.views import ScriptedClient, failure, view_config

RECORDS = {key: {"data": key.encode(), "number": number} for number, key in enumerate("abc")}


@pytest.fixture
def view(cluster: ClusterUnderTest) -> Iterator[View]:
    with connect(view_config(cluster, ride_through_s=1.0)) as connected:
        yield connected


def test_records_are_written_whole_over_what_is_there(view):
    view.put("whole", "a", {"data": b"old", "other": 1})
    view.put_many("whole", RECORDS)
    assert [record.bins for record in view.get_many("whole", list(RECORDS))] == list(RECORDS.values())


def test_a_write_whose_answer_was_lost_is_written_again(view):
    def applied_but_lost(real, batch):
        real(batch)
        raise failure(9, in_doubt=True)

    view.client = ScriptedClient(view.client, "batch_write", [failure(11), applied_but_lost])
    view.put_many("again", RECORDS)
    assert view.client.num_calls == 3
    assert [record.generation for record in view.get_many("again", list(RECORDS))] == [2, 2, 2]


def test_what_can_not_be_written_is_said_and_the_rest_is_written(view):
    too_large = {"large": {"data": bytes(view.max_record_bytes + 1)}}
    with pytest.raises(ViewError, match="writing 1 records of large"):
        view.put_many("large", RECORDS | too_large)
    assert view.exist("large", [*RECORDS, "large"]) == [True, True, True, False]
