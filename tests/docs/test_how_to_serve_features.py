"""The programs in the how-tos about features that live and tables run, and print what the pages say."""

from pathlib import Path

import pytest

from tests.conftest import ROOT, simulated_cluster
from tests.docs.test_how_to import BLOCKS


@pytest.mark.parametrize(("page", "num_programs"), [("keep-features-live", 3), ("publish-tables", 3)])
def test_the_programs_print_what_the_page_says(
    page: str, num_programs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / f"docs/how-to/{page}.md").read_text()
    programs = BLOCKS.findall(text)
    assert len(programs) == num_programs
    names: dict[str, object] = {}
    with simulated_cluster(tmp_path) as hosts:
        for program, printed in programs:
            exec(compile(program.replace("127.0.0.1:3101", hosts[0]), page, "exec"), names)
            assert capsys.readouterr().out == printed, program
