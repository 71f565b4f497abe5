"""What the how-to about publishing says to type runs: the program, each command, and the launch with a gate."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from coordinator.cli import commands
from coordinator.config import register
from geotrain.program import to_config
from tests.conftest import ROOT, simulated_cluster
from tests.docs.test_how_to import BLOCKS

PAGE = (ROOT / "docs/how-to/publish-and-look-up.md").read_text()


def test_the_program_and_the_commands_do_what_the_page_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [(program, printed)] = BLOCKS.findall(PAGE)
    [(listing, listed)] = re.findall(
        r"^```\nexport [^\n]*\n(.*?)^```\n\n```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    in_the_table = re.findall(r"`(geotrain models .*?)`", "".join(re.findall(r"^\|.*\n", PAGE, re.MULTILINE)))
    assert len(in_the_table) == 9
    monkeypatch.chdir(tmp_path)
    with simulated_cluster(tmp_path / "cluster") as hosts:
        exec(compile(program.replace("127.0.0.1:3101", hosts[0]), "the page", "exec"), {})
        assert capsys.readouterr().out == printed
        monkeypatch.setenv("GEOTRAIN_VIEW", hosts[0])
        typed(listing)
        assert words(capsys.readouterr().out) == words(listed)
        for command in in_the_table:
            typed(command)


def test_a_job_is_launched_with_the_gate_that_the_page_shows() -> None:
    [overrides] = re.findall(r"^python -m coordinator.launch (.*)", PAGE, re.MULTILINE)
    register()
    with initialize_config_module("configs", version_base="1.3"):
        gate = to_config(compose("launch", overrides=shlex.split(overrides))).gate
    assert (gate.metric, gate.min_gain, gate.max_drop) == ("loss", 0.001, 0.02)


def typed(command: str) -> None:
    with pytest.raises(SystemExit) as left:
        commands.main(shlex.split(command)[1:])
    assert not left.value.code, command


def words(table: str) -> Sequence[str]:
    """What it says, but for its lines."""
    return re.sub("[─ \n]+", " ", table).split()
