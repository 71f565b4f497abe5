"""The programs in the how-to about predictions run, and print what the page says."""

from pathlib import Path

import pytest

from tests.conftest import ROOT, simulated_cluster
from tests.docs.test_how_to import BLOCKS

PAGE = "serve-predictions"


def test_the_programs_print_what_the_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    programs = BLOCKS.findall((ROOT / f"docs/how-to/{PAGE}.md").read_text())
    assert len(programs) == 3
    names: dict[str, object] = {}
    with simulated_cluster(tmp_path / "cluster") as hosts:
        for program, printed in programs:
            program = program.replace("127.0.0.1:3101", hosts[0])
            program = program.replace("mkdtemp()", f"mkdtemp(dir={str(tmp_path)!r})")
            exec(compile(program, PAGE, "exec"), names)
            assert capsys.readouterr().out == printed, program
        exec("watcher.close(); view.close()", names)
