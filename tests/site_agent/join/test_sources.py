import pyarrow as pa
import pytest

from geotrain.errors import DataError
from geotrain.tasks.config import ViewSetConfig
from geotrain.view.config import ViewConfig
from geotrain.view.cut import partitions
from geotrain.wire.digests import digests
from site_agent.join.sources import Part

HALF = range(2048)
KEYS = pa.array(range(400))
IS_INSIDE = partitions(digests("accounts", KEYS)) < HALF.stop


@pytest.fixture
def part() -> Part:
    view_set = ViewSetConfig(columns={"account": "int64"}, key="account")
    return Part(ViewConfig(hosts=["localhost:3000"]), "accounts", view_set, partitions=HALF, by_key=True)


def test_keys_that_lie_in_the_partitions_are_taken_whether_rows_have_them_or_not(part: Part) -> None:
    inside = KEYS.filter(pa.array(IS_INSIDE))
    for known in (None, pa.chunked_array([inside[:50], pa.array([None], pa.int64())])):
        part.check_key(pa.table({"account": inside}), known)


@pytest.mark.parametrize("known", [None, pa.chunked_array([KEYS.filter(pa.array(IS_INSIDE))])])
def test_a_single_key_that_lies_elsewhere_is_refused(part: Part, known: pa.ChunkedArray | None) -> None:
    inside, outside = KEYS.filter(pa.array(IS_INSIDE)), KEYS.filter(pa.array(~IS_INSIDE))
    table = pa.table({"account": pa.chunked_array([inside, outside[:1]])})
    with pytest.raises(DataError, match="set accounts: the records are not stored by the column account"):
        part.check_key(table, known)
