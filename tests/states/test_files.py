import json

import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geotrain.errors import ConfigError, DataError
from geotrain.states.files import export_state, import_state
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import TENSORS
from geotrain.states.tables import publish_table
from tests.states.test_publish import put_state

TENSORS_OF_A_STATE = {
    "w": torch.arange(12.0).reshape(3, 4),
    "same": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, float("nan")]).bfloat16(),
    "step": torch.tensor(7),
    "none": torch.empty(0, 3),
}


@pytest.fixture
def state(view, model):
    put_state(
        view,
        model,
        1,
        "site/ewr",
        tensors=TENSORS_OF_A_STATE,
        lineage={"job": "j", "round": 4},
        metadata={"task": "{}"},
    )
    return ModelLookup(view, model, "site/ewr").latest()


@pytest.fixture
def file(state, tmp_path):
    export_state(state, tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def same(left, right):
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name].nan_to_num(), right[name].nan_to_num())
        for name in left
    )


def test_any_program_that_knows_safetensors_reads_an_exported_state(file, model):
    assert same(load_file(file), TENSORS_OF_A_STATE)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["geotrain.lineage"]) == {"job": "j", "round": 4}
    assert (metadata["geotrain.model"], metadata["geotrain.version"]) == (f'"{model}"', "1")


def test_an_imported_state_is_the_same_and_says_where_it_came_from(view, model, file):
    published = import_state(view, file, alias="production", who="ann")
    assert published.reference == f"{model}/site/ewr@2"
    assert published.bytes_written < 5000  # all of its tensors are there already
    state = ModelLookup(view, model, "site/ewr").latest()
    assert same(state.tensors, TENSORS_OF_A_STATE)
    assert state.manifest.metadata == {"task": "{}"}
    origin = state.manifest.lineage["imported"]
    assert (origin["reference"], origin["who"]) == (f"{model}/site/ewr@1", "ann")
    assert state.manifest.lineage["round"] == 4


def test_a_state_is_imported_where_it_is_told_to_as_a_candidate(view, model, file):
    assert import_state(view, file, model=f"{model}x", scope="site/jfk").reference == f"{model}x/site/jfk@1"
    assert same(ModelLookup(view, f"{model}x", "site/jfk", "candidate").latest().tensors, TENSORS_OF_A_STATE)


def test_a_file_of_another_program_needs_a_name_and_has_no_lineage_but_its_import(view, model, tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ConfigError, match="does not say of which model"):
        import_state(view, tmp_path / "foreign.safetensors")
    import_state(view, tmp_path / "foreign.safetensors", model=model)
    lineage = ModelLookup(view, model, alias="candidate").latest().manifest.lineage
    assert lineage.keys() == {"imported"}
    assert lineage["imported"]["file"] == "foreign.safetensors"


@pytest.mark.parametrize("damage", ["cut short", "not there", "no header"])
def test_a_file_that_can_not_be_read_is_named_and_nothing_is_published(view, file, monkeypatch, damage):
    match damage:
        case "cut short":
            file.write_bytes(file.read_bytes()[:-5])
        case "not there":
            file.unlink()
        case "no header":
            file.write_bytes(b"no safetensors")
    for write in ("put", "put_many"):
        monkeypatch.setattr(view, write, lambda *_, **__: pytest.fail("written"))
    with pytest.raises(DataError, match=r"state\.safetensors is no safetensors file"):
        import_state(view, file)


def test_a_tensor_of_a_type_that_states_lack_is_named(view, model, tmp_path):
    save_file({"odd": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "odd.safetensors")
    with pytest.raises(DataError, match="tensor odd has the type"):
        import_state(view, tmp_path / "odd.safetensors", model=model)


def test_metadata_that_is_damaged_is_refused(view, tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "bad.safetensors", {"geotrain.model": "no json"})
    with pytest.raises(DataError, match="damaged metadata"):
        import_state(view, tmp_path / "bad.safetensors")


def test_a_file_that_can_not_be_written_is_named_and_no_half_of_one_is_left(state, tmp_path):
    with pytest.raises(DataError, match="can't be written"):
        export_state(state, tmp_path / "nowhere" / "state.safetensors")
    export_state(state, tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_table_is_not_exported_without_its_rows(view, model, tmp_path):
    publish_table(view, model, pa.table({"id": [1], "score": [0.5]}), key="id")
    with pytest.raises(DataError, match=f"{model}/global@1 is a table"):
        export_state(ModelLookup(view, model).latest(), tmp_path / "table.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_parts_of_an_import_are_shared_with_what_is_there(view, state, file, monkeypatch):
    monkeypatch.setattr(view, "put_many", lambda *_: pytest.fail("written"))
    put, written = view.put, []
    monkeypatch.setattr(view, "put", lambda name, *rest, **options: (written.append(name), put(name, *rest, **options)))
    import_state(view, file)
    assert TENSORS not in written
