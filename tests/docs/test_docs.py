"""What the docs say is what the code does."""

import re
import shlex
from pathlib import Path

import pytest

from geotrain import errors
from scripts.generate import COMMANDS, PROGRAMS, REFERENCE, commands, descriptions, reference
from tests.conftest import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_configuration_reference_is_what_the_code_says():
    assert (ROOT / REFERENCE).read_text() == reference(), "run `make generate`"


def test_the_reference_of_the_commands_is_what_they_say():
    assert (ROOT / COMMANDS).read_text() == commands(), "run `make generate`"


def test_every_field_of_every_program_is_described():
    text = reference()
    for config in PROGRAMS.values():
        for name in descriptions(config):
            assert f"`{name}`" in text


def test_every_exit_code_is_documented():
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.GeotrainError):
            assert re.search(rf"\| {kind.exit_code} \| `{name}` \|", text), name


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_command_names_exists(page):
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(".venv/bin/python -m"):
                module = ROOT / shlex.split(line, comments=True)[2].replace(".", "/")
                assert (module / "__main__.py").exists() or module.with_suffix(".py").exists(), line


def test_the_readmes_tree_names_every_folder():
    tree = (ROOT / "README.md").read_text()
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    missing = [name for name in sorted(tracked) if not re.search(rf"^{name}/ ", tree, re.MULTILINE)]
    assert not missing


def test_no_document_names_a_place_on_the_machine_it_was_written_on():
    for page in DOCS:
        assert not re.search(r"/(root|home|work)/", Path(page).read_text()), page
