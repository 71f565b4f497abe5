"""Docker, or podman, from the command line: the containers of one compose project. Knows nothing of what they run."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Made by scripts/base_image.sh, where no registry can be reached.
BASE_IMAGE = "localhost/python:3.11-bookworm"
CALL_DEADLINE_S = 60.0
# Building, stopping everything.
COMPOSE_DEADLINE_S = 900.0


class NoEngine(Exception):
    """Containers can't be run here: why not."""


def _call(*command: str, deadline_s: float = CALL_DEADLINE_S, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command leaves; an engine that hangs is one that failed."""
    environment = {**os.environ, **variables}
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end within {deadline_s:g} s")


def _succeeds(*command: str) -> bool:
    return bool(shutil.which(command[0])) and _call(*command).returncode == 0


class Containers:
    """Those of one project on one compose file. engine: `docker` or `podman`."""

    def __init__(self, project: str, file: str) -> None:
        """Raises NoEngine."""
        self.project = project
        if _succeeds("docker", "info") and _succeeds("docker", "compose", "version"):
            self.engine, compose = "docker", ["docker", "compose"]
        elif not (shutil.which("podman") and shutil.which("podman-compose")):
            raise NoEngine("neither a Docker Engine with compose nor podman with podman-compose is there")
        # Without an image: the machine's own files, under what is thrown away.
        elif not _succeeds("podman", "run", "--rm", "--network=none", "--rootfs", "/:O", "true"):
            raise NoEngine("podman is there, but can't run a container")
        elif not (_succeeds("podman", "image", "exists", BASE_IMAGE) or shutil.which("debootstrap")):
            raise NoEngine(f"podman is there, but neither the image {BASE_IMAGE} nor debootstrap to make it")
        else:
            self.engine, compose = "podman", ["podman-compose"]
        self._compose = [*compose, "-p", project, "-f", file]

    @property
    def is_podman(self) -> bool:
        return self.engine == "podman"

    def build(self, service: str) -> None:
        """The image, as a service has it; with podman with this machine's pip settings."""
        if not self.is_podman:
            self.compose("build", service)
            return
        if not _succeeds("podman", "image", "exists", BASE_IMAGE):
            subprocess.run(["scripts/base_image.sh", BASE_IMAGE], cwd=ROOT, check=True)
        subprocess.run(["scripts/build_image.sh"], cwd=ROOT, check=True)

    def compose(self, *arguments: str, **variables: str) -> None:
        command = [*self._compose, *arguments]
        done = _call(*command, deadline_s=COMPOSE_DEADLINE_S, **variables)
        if done.returncode != 0:  # podman-compose 1.0 leaves with 0 whatever happens: `id` notices
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")

    def start(self, *services: str, **variables: str) -> None:
        # Without what they depend on: podman-compose 1.0 starts it without waiting for it.
        self.compose("up", "-d", "--no-deps", *services, **variables)

    def down(self, *arguments: str) -> None:
        self.compose("down", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the engine itself."""
        return _call(self.engine, *arguments)

    def id(self, service: str) -> str:
        """Of a service's container."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}")
        found = self.run("ps", "-aq", *(f"--filter=label={label}" for label in labels)).stdout.split()
        if not found:
            raise SystemExit(f"{service} has no container")
        return found[0]

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in a service's container."""
        return self.run("exec", self.id(service), *command)

    def logs(self, service: str) -> str:
        said = self.run("logs", self.id(service))
        return said.stdout + said.stderr

    def inspect(self, service: str) -> Any:
        [found] = json.loads(self.run("inspect", self.id(service)).stdout)
        return found

    def is_done(self, service: str) -> bool:
        """Whether a container has ended well."""
        state = self.inspect(service)["State"]
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0)

    def is_healthy(self, service: str) -> bool:
        """What its health check says. podman asks it now: by itself it asks only where systemd is."""
        if self.is_podman:
            return self.run("healthcheck", "run", self.id(service)).returncode == 0
        return bool(self.inspect(service)["State"]["Health"]["Status"] == "healthy")
