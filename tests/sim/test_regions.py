"""What the demo starts is told to reach the view as the demo itself does."""

from dataclasses import replace
from pathlib import Path

import pytest

import coordinator.config
import site_agent.config
from geotrain.program import config_from_json
from geotrain.view.config import ViewConfig
from sim.regions import Regions
from tests.sim.test_config import composed, sim

for program in (coordinator.config, site_agent.config):
    program.register()
SECURED = ["view.tls.ca='of a/ca.pem'", "view.tls.name=as.example", "view.user=demo", "view.password_file=password"]


class Noted:
    """A supervisor that starts nothing: (module, arguments) of what it was to start."""

    def __init__(self) -> None:
        self.started: list[tuple[str, list[str]]] = []

    def start_python(self, name: str, module: str, *arguments: str, **_: bool) -> None:
        self.started.append((module, list(arguments)))

    def wait_says(self, child: None, pattern: str, *, deadline_s: float) -> tuple[str, str]:
        return "", "127.0.0.1:3000"

    def wait_done(self, child: None, *, deadline_s: float) -> None:
        pass


@pytest.mark.parametrize("overrides", [[], SECURED], ids=["plaintext", "secured"])
def test_every_part_reaches_the_view_with_the_settings_of_the_demo(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.regions.ingest_shared", lambda view: None)
    config, supervisor = sim("cluster=external", "cluster.hosts=[as1.example:4333]", *overrides), Noted()
    regions = Regions(config, supervisor, tmp_path)  # type: ignore[arg-type]
    regions.start_cluster()
    regions.start_agents(regions.start_coordinator())
    regions.ingest(None)  # type: ignore[arg-type]
    expected = replace(config.view, hosts=["as1.example:4333"])
    told: list[ViewConfig] = []
    for module, arguments in supervisor.started:
        if module in ("coordinator", "site_agent"):
            own = [each for each in arguments if not each.startswith("hydra")]
            told.append(composed(module, *own).view)
        elif module == "sim.ingest":
            told.append(config_from_json(ViewConfig, arguments[-1].removeprefix("--view=")))
    assert len(told) == 7
    assert told == [replace(expected, rack=view.rack) for view in told]
    assert {view.rack for view in told} == {1, 2, 3}
