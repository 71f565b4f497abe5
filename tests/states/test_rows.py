import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.errors import ViewError
from geotrain.states.rows import Layout, damaged, layout_of, sealed


def rows_of(num_rows: int) -> np.ndarray:
    rows = np.empty(num_rows, [("vector", "<f4", (3,)), ("count", "<i8")])
    rows["vector"], rows["count"] = np.arange(num_rows * 3).reshape(num_rows, 3), 7
    return rows


def test_rows_come_back_from_what_is_stored():
    rows = rows_of(5)
    layout = Layout.from_json(layout_of(list(range(5)), rows).to_json())
    stored = sealed(rows)
    back = np.frombuffer(stored.tobytes(), layout.dtype)
    assert layout.dtype.itemsize == stored.shape[1]
    assert all(np.array_equal(back[name], rows[name]) for name in ("vector", "count"))


@given(st.integers(0, 3), st.integers(0, 27), st.integers(1, 255))
def test_any_byte_of_a_row_or_its_checksum_that_changed_is_found(place, at, change):
    stored = [row.tobytes() for row in sealed(rows_of(4))]
    num_bytes = len(stored[0])
    assert damaged([*stored, None], num_bytes) == []
    stored[place] = stored[place][:at] + bytes([stored[place][at] ^ change]) + stored[place][at + 1 :]
    assert damaged(stored, num_bytes) == [place]


@pytest.mark.parametrize(("found", "advice"), [(1, "publish the table again"), (3, "upgrade geotrain here")])
def test_a_table_of_another_format_is_refused_with_advice(found, advice):
    with pytest.raises(ViewError, match=f"a table has format {found}, this version of geotrain reads 2") as refused:
        Layout.from_json(json.dumps({"format": found}))
    assert refused.value.remedy == advice
