"""The programs in the how-tos run, and print what the page says."""

import re
from pathlib import Path

from tests.conftest import ROOT, simulated_cluster

PAGE = ROOT / "docs/how-to/read-and-write-the-view.md"
# A program, and what it prints where the page says so.
BLOCKS = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def test_the_programs_of_reading_and_writing_print_what_the_page_says(tmp_path: Path, capsys) -> None:
    programs = BLOCKS.findall(PAGE.read_text())
    assert len(programs) == 7
    names: dict[str, object] = {}
    with simulated_cluster(tmp_path) as hosts:
        for program, printed in programs:
            exec(compile(program.replace("127.0.0.1:3101", hosts[0]), str(PAGE), "exec"), names)
            assert capsys.readouterr().out == printed, program
