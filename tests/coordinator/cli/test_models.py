"""`geotrain models` against the cluster under test, as a user would type it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from omegaconf import OmegaConf

from coordinator.cli import commands
from geotrain.states import tables
from geotrain.states.publish import publish
from geotrain.states.tables import publish_table
from geotrain.view.connect import connect
from tests.conftest import ClusterUnderTest, describe, simulated_cluster
from tests.view.views import view_config

Type = Callable[..., tuple[int, str]]

LINEAGE = {
    "job": "flights-a",
    "cut": {"legs": "ab" * 32, "rows": "1234", "dropped": "1", "until_ns": "1700000000000000000"},
    "weights": {"ewr": 300.0, "jfk": 100.0},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    """One of this module's own: a manifest that another has damaged would keep everything from being collected."""
    with simulated_cluster(tmp_path_factory.mktemp("cluster")) as hosts:
        yield describe(hosts)


@pytest.fixture
def model(cluster: ClusterUnderTest, request: pytest.FixtureRequest) -> str:
    """A model of the test's own, of three versions; the last is a candidate."""
    name = f"cli-{abs(hash(request.node.nodeid)):x}"
    with connect(view_config(cluster)) as view:
        for version in (1, 2, 3):
            publish(
                view,
                model=name,
                scope="global",
                tensors={"body": torch.ones(1000), "head": torch.full((4,), float(version))},
                lineage=LINEAGE | {"round": version, "metrics": {"ewr": {"loss": 0.5 - version / 10}}},
                metadata={},
                alias="candidate" if version == 3 else "production",
            )
    return name


@pytest.fixture
def type_(cluster: ClusterUnderTest, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Type:
    """Types a command; returns its exit code and what it printed."""
    view = tmp_path / "view.yaml"
    OmegaConf.save(OmegaConf.structured(view_config(cluster)), view)

    def typed(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            commands.main(["models", *arguments, "--view", str(view)])
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out + captured.err

    return typed


def test_all_states_are_listed_with_their_aliases(type_: Type, model: str) -> None:
    code, text = type_()
    line = next(line for line in text.splitlines() if model in line)
    assert code == 0
    assert "candidate 3, production 2" in line
    head = next(head for head in json.loads(type_("--json")[1]) if head["model"] == model)
    assert (head["newest"], head["aliases"]) == (3, {"candidate": 3, "production": 2})


def test_a_card_says_who_made_a_state_of_what_and_what_it_holds(type_: Type, model: str) -> None:
    code, text = type_("show", model)
    assert code == 0
    for said in (
        *(f"{model}/global@2  production", "job flights-a, round 2", "1,234 rows, 1 dropped", "legs: abababababab"),
        *("75.0%", "0.3000", "F32 [1000]", "2 tensors, 4.0 kB", "production 1 -> 2"),
    ):
        assert said in text
    shown = json.loads(type_("show", f"{model}@candidate", "--json")[1])
    assert (shown["version"], shown["head"]["aliases"]["candidate"]) == (3, 3)


def test_a_candidate_is_promoted_and_rolled_back(type_: Type, model: str) -> None:
    promoted = type_("promote", f"{model}@candidate", "--reason", "better")
    assert promoted == (0, f"production points to {model}/global@3 now, to 2 before\n")
    assert json.loads(type_("rollback", model, "--json")[1]) == {"alias": "production", "before": 3, "now": 2}
    assert ": better" in type_("show", model)[1]
    assert type_("promote", f"{model}@1")[0] == 2


def test_a_difference_names_metrics_data_and_tensors(type_: Type, model: str) -> None:
    code, text = type_("diff", f"{model}@1", f"{model}@3")
    assert code == 0
    for said in ("ewr/loss", "-0.2", "round", "head", "1 of 1", "1 are the same"):
        assert said in text
    changed = json.loads(type_("diff", f"{model}@1", f"{model}@3", "--json")[1])
    assert list(changed["tensors"]) == ["head"]
    assert changed["data"] == {}


def test_a_state_goes_to_a_file_and_comes_back(type_: Type, model: str, tmp_path: Path) -> None:
    file = str(tmp_path / "state.safetensors")
    assert type_("export", model, file)[0] == 0
    code, text = type_("import", file, "--to", f"{model}/site/ewr", "--reason", "moved")
    assert (code, text.split(" is ")[1]) == (0, f"{model}/site/ewr@1 now, and its candidate\n")
    assert f"where it was {model}/global@2" in type_("show", f"{model}/site/ewr@1")[1]


def test_what_is_kept_is_told_and_a_dry_run_changes_nothing(type_: Type, model: str) -> None:
    assert type_("pin", f"{model}@1", "--reason", "audit")[0] == 0
    code, text = type_("gc", "--dry-run")
    assert code == 0
    assert ": audit" in next(line for line in text.splitlines() if f"{model}/global@1" in line)
    assert "parts would be removed" in text
    assert f"{model}/global@2" in json.loads(type_("gc", "--dry-run", "--json")[1])["kept"]
    assert type_("unpin", f"{model}@1")[0] == 0
    assert type_("unpin", f"{model}@1")[0] == 4


def test_a_collection_has_unused_rows_of_tables_removed(
    type_: Type, cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(view_config(cluster)) as view:
        publish_table(view, "cli-table", pa.table({"id": [1, 2], "x": [0.5, 1.5]}), key="id")
    asked: list[str] = []
    monkeypatch.setattr(tables, "remove_unused_rows", lambda view, name: asked.append(name))
    assert type_("gc", "--dry-run")[0] == 0
    assert asked == []
    assert type_("gc", "--keep", "1000")[0] == 0
    assert "cli-table" in asked  # other tests leave tables, too


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nothing"), 4, "model nothing has no state in scope global"),
        (("show", "{model}@9"), 4, "no version or alias '9'"),
        (("show", "{model}/site/nowhere"), 4, "no state in scope site/nowhere"),
        (("show", "No Model"), 2, "model 'No Model'"),
        (("diff", "{model}@1", "{model}@x"), 4, "no version or alias 'x'"),
        (("import", "no-such-file"), 4, "no-such-file is no safetensors file"),
        (("export", "{model}", "/no/such/folder/file"), 4, "can't be written"),
    ],
)
def test_what_there_is_not_is_named(type_: Type, model: str, arguments: tuple[str, ...], code: int, said: str) -> None:
    left, text = type_(*(argument.format(model=model) for argument in arguments))
    assert left == code
    assert text.startswith("error: ")
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("view", "code", "said"),
    [
        ("no-such.yaml", 2, "can't be read"),
        ("127.0.0.1:x", 2, "host:port"),
        ("127.0.0.1:9", 3, "no cluster answers"),
    ],
)
def test_a_view_that_can_not_be_reached_is_named(
    capsys: pytest.CaptureFixture[str], view: str, code: int, said: str
) -> None:
    with pytest.raises(SystemExit) as left:
        commands.main(["models", "--view", view])
    assert left.value.code == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ("hostz: [a:1]", "hostz"),
        ("tls: {authority: ca.pem}", "authority"),
        ("tls: {ca: nowhere.pem}", "view.tls.ca: nowhere.pem can't be read"),
        ("user: ewr", "view.password_file is not given"),
        ("{user: ewr, password_file: nowhere}", "view.password_file: nowhere can't be read"),
    ],
)
def test_fields_of_a_yaml_file_that_do_not_serve_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fields: str, named: str
) -> None:
    (tmp_path / "view.yaml").write_text(fields)
    with pytest.raises(SystemExit) as left:
        commands.main(["models", "--view", str(tmp_path / "view.yaml")])
    assert left.value.code == 2
    assert named in capsys.readouterr().err


def test_listing_and_promoting_load_no_torch() -> None:
    code = (
        "import sys; from coordinator.cli import cards, commands; from geotrain.states import aliases, collect; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
