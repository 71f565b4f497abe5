import pyarrow as pa

from geotrain.view import layout
from geotrain.view.layout import Layout
from geotrain.wire.codes import EPOCH_S, Particle
from geotrain.wire.columnar import Batch
from geotrain.wire.packing import pack


def batch(columns: list[pa.Array], key: pa.Array | None = None, void_times: tuple[int, int] = (0, 0)) -> Batch:
    generations = pa.array([1, 2], pa.uint32())
    return Batch(2, columns, key, None, generations, pa.array(void_times, pa.uint32()))


def test_a_layout_says_what_is_asked_of_the_server():
    found = Layout({"at": pa.timestamp("us"), "__key": pa.string(), "l": pa.list_(pa.bool_())}, ["__generation"])
    assert found.bins == {"at": Particle.INTEGER, "l": Particle.LIST}
    assert found.key == Particle.STRING
    assert not found.with_digests
    assert found.schema.names == ["at", "__key", "l", "__generation"]


def test_a_batch_is_put_in_the_order_and_types_of_the_columns():
    found = Layout({"l": pa.list_(pa.int64()), "__key": pa.int64(), "at": pa.timestamp("us")}, ["__generation"])
    lists = pa.array([pack([1, None]), pack(["a"])], pa.binary())
    rows, mismatches = found.arrange(batch([lists, pa.array([5, None])], key=pa.array([7, 8])))
    assert rows.schema == found.schema
    assert rows.drop_columns("at").to_pylist() == [
        {"l": [1, None], "__key": 7, "__generation": 1},
        {"l": None, "__key": 8, "__generation": 2},
    ]
    assert rows["at"].cast(pa.int64()).to_pylist() == [5, None]
    assert mismatches == {"l": 1}


def test_the_time_to_live_is_in_seconds_from_now_and_null_for_ever(monkeypatch):
    monkeypatch.setattr(layout.time, "time", lambda: EPOCH_S + 1000.9)
    rows, _ = Layout({}, ["__ttl"]).arrange(batch([], void_times=(1060, 0)))
    assert rows["__ttl"].to_pylist() == [60, None]


def test_rows_without_columns_are_still_counted():
    rows, _ = Layout({}, []).arrange(batch([]))
    assert (rows.num_rows, rows.num_columns) == (2, 0)
