"""Rows that are not as they were written: read where they were, or said."""

import numpy as np
import pytest

from geotrain.errors import ViewError
from geotrain.states.rows import ROW, set_of
from geotrain.states.table_lookup import TableLookup
from geotrain.states.tables import publish_table
from tests.states.test_tables import keys_of, vectors


@pytest.mark.parametrize("damage", [lambda row: b"short", lambda row: bytes([row[0] ^ 1]) + row[1:]])
def test_a_damaged_row_is_said(view, model, damage):
    publish_table(view, model, vectors(2), key="id")
    key = keys_of(view, model, 1)[1]
    view.put(set_of(model), key, {ROW: damage(view.get(set_of(model), key).bins[ROW])})
    with pytest.raises(ViewError, match="the row 1 is damaged"):
        TableLookup(view, model).get([0, 1])
    publish_table(view, model, vectors(2), key="id")  # as the error advises
    assert TableLookup(view, model).get([0, 1]).is_found.all()


def test_a_row_that_is_damaged_in_this_rack_is_read_where_it_was_written(view, model, monkeypatch, caplog):
    publish_table(view, model, vectors(3), key="id")
    lookup = TableLookup(view, model)
    whole = lookup.get([2, 1, 0])
    read = view.read_places

    def damaged(places, bins, *, reads=None):
        rows = read(places, bins, reads=reads)
        if reads is None:
            rows[2][2][ROW] = bytes(len(rows[2][2][ROW]))
        return rows

    monkeypatch.setattr(view, "read_places", damaged)
    assert np.array_equal(lookup.get([2, 1, 0]).values["vector"], whole.values["vector"])
    assert f"1 rows of the table {model} are damaged in this rack" in caplog.text
