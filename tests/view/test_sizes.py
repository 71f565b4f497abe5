import polars as pl
import pytest

from geotrain.errors import DataError
from geotrain.view.connect import View
from geotrain.view.sizes import set_sizes
from geotrain.view.write import write


def test_one_copy_of_a_set_is_counted_however_many_there_are(view: View, set_name: str) -> None:
    write(view, pl.DataFrame({"key": range(100), "text": ["x" * 50] * 100}), set_name, "key")
    size = set_sizes(view, [set_name])[set_name]
    assert size.num_records == 100
    assert 100 * 50 < size.num_bytes < 100 * 500


def test_a_set_without_records_is_named_beside_those_that_have_some(view: View, set_name: str) -> None:
    write(view, pl.DataFrame({"key": [1]}), set_name, "key")
    with pytest.raises(DataError, match=f"set {set_name}x: namespace .* has no records of it\n.*{set_name}"):
        set_sizes(view, [set_name, f"{set_name}x"])
