"""The programs from an installed wheel, in a folder that has nothing of the source tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "--all", f"--prefix={source}/"], check=True)
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True, timeout=120
    )
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, timeout=120)
    return folder / "site"


@pytest.mark.parametrize(
    ("command", "composed"),
    [
        (["coordinator"], "listen: 127.0.0.1:50551"),
        (["coordinator.launch", "strategy=nesterov"], "nesterov: true"),
        (["site_agent", "site=jfk"], "name: jfk"),
        (["sim.cluster"], "namespace: geotrain"),
        (["sim", "scenario=smoke"], "days_a_month: 4"),
    ],
)
def test_every_program_starts_from_an_installed_wheel(installed, tmp_path, command, composed):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    started = subprocess.run(
        [sys.executable, "-m", *command, "--cfg", "job"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert composed in started.stdout


def test_the_program_geotrain_is_installed(installed):
    started = subprocess.run(
        [sys.executable, installed / "bin" / "geotrain", "explain", "--help"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert "why it closed" in started.stdout
