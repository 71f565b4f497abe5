"""Starts docker-compose.multisite.yml, breaks it, and asserts from outside, by the command line, that it holds.

`python -m scripts.try_regions` (make test-compose), with docker compose or podman-compose. Leaves nothing
running; `--keep` leaves everything as it is.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROJECT = "geotrain-try"
FILE = "docker-compose.multisite.yml"
SITES = ("ewr", "jfk", "lga")
COORDINATORS = ("coordinator-ewr", "coordinator-jfk")
# What configs/scenario/three_regions.yaml has the main job reach.
MIN_AUC = {"ewr": 0.745, "jfk": 0.720, "lga": 0.755}
POLL_S = 1.0
IMAGE = "localhost/geotrain"
# So that a job is still under way when it is looked at.
MANY_ROUNDS = 30


def _docker_runs() -> bool:
    asked = (["docker", "info"], ["docker", "compose", "version"])
    return bool(shutil.which("docker")) and all(
        subprocess.run(ask, capture_output=True).returncode == 0 for ask in asked
    )


ENGINE, *COMPOSE = ("docker", "docker", "compose") if _docker_runs() else ("podman", "podman-compose")


def compose(*arguments: str, **variables: str) -> None:
    command = [*COMPOSE, "-p", PROJECT, "-f", FILE, *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode != 0:  # podman-compose 1.0 leaves with 0 whatever happens: `container` notices
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ENGINE, *arguments], capture_output=True, text=True)


def container(service: str) -> str:
    """The id of a service's container."""
    labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
    found = engine("ps", "-aq", *(f"--filter=label={label}" for label in labels)).stdout.split()
    if not found:
        raise SystemExit(f"{service} has no container")
    return found[0]


def wait_for(what: str, look: Callable[[], Any], deadline_s: float) -> Any:
    """What `look` returns once it is something. Raises SystemExit where it is nothing for too long."""
    print(f"  waiting: {what}", flush=True)
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if found := look():
            return found
        time.sleep(POLL_S)
    raise SystemExit(f"FAILED: not within {deadline_s:g} s: {what}")


def start(*services: str, **variables: str) -> None:
    # Without what they depend on: podman-compose 1.0 starts it without waiting for it.
    compose("up", "-d", "--no-deps", *services, **variables)


def wait_done(*services: str, deadline_s: float) -> None:
    for service in services:
        wait_for(f"{service} is done", lambda service=service: _is_done(_state(service)), deadline_s)


def _state(service: str) -> Any:
    return json.loads(engine("inspect", container(service)).stdout)[0]["State"]


def _is_done(state: Any) -> bool:
    return bool(state["Status"] == "exited" and state["ExitCode"] == 0)


def answers(service: str, port: int) -> bool:
    look = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
    return engine("exec", container(service), "python", "-c", look).returncode == 0


def asked(*command: str) -> Any:
    """What `geotrain` prints, asked at each coordinator until the one that leads answers; None: none does."""
    for name in COORDINATORS:
        said = engine("exec", container(name), "python", "-m", "coordinator.cli", *command, "--json")
        if said.returncode == 0:
            return json.loads(said.stdout)
    return None


def leader() -> str:
    """The service that leads, or nothing."""
    seen = asked("status")
    return seen["coordinator"]["address"].partition(":")[0] if seen and seen["coordinator"]["ready"] else ""


def job(name: str) -> Any:
    return asked("rounds", f"flights-{name}") or {"status": "not seen", "history": [], "round": 0}


def is_in_round(name: str, number: int) -> bool:
    seen = job(name)
    return bool(seen["status"] == "running" and seen["round"] >= number)


def committed_without(site: str, name: str) -> Any:
    """The first committed round that the site is not in."""
    rounds = [each for each in job(name)["history"] if each["commit"]]
    return next((each for each in rounds if site not in each["commit"]["weights"]), None)


def site_state(site: str) -> str:
    return next((each["state"] for each in asked("sites") or [] if each["site"] == site), "")


def control(action: str, name: str) -> bool:
    """What only an operator's certificate may do, from beside the coordinator that leads."""
    first = leader()
    network = f"--network={PROJECT}_{first.rpartition('-')[2]}"
    mount = f"--volume={PROJECT}_tls-operator:/run/tls:ro"
    where = ("--tls", "/run/tls", "--coordinator", f"{first}:50552")
    done = engine("run", "--rm", network, mount, IMAGE, "coordinator.cli", action, f"flights-{name}", *where)
    print(done.stdout + done.stderr, end="", flush=True)
    return done.returncode == 0


def ended(name: str) -> Any:
    seen = job(name)
    return seen if seen["status"] in ("finished", "failed", "cancelled") else None


def check(holds: bool, what: str) -> None:
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def build() -> None:
    if ENGINE == "podman":  # with this machine's pip settings
        subprocess.run(["scripts/build_image.sh"], cwd=ROOT, check=True)
    else:
        compose("build", "job")


def bring_up() -> None:
    """Everything but a job, in the order that the file's `depends_on` has."""
    if (
        ENGINE == "podman"
    ):  # podman-compose 1.0 makes networks without their driver_opts, but takes those that are there
        for site in SITES:
            engine("network", "create", "--opt=isolate=true", f"{PROJECT}_{site}")
    start("certificates")
    wait_done("certificates", deadline_s=60)
    start("cluster", "wan")
    for name in ("cluster", "wan"):
        wait_for(f"{name} listens", lambda name=name: answers(name, 3100), 120)
    start(*COORDINATORS, *(f"ingest-{site}" for site in SITES))
    wait_for("a coordinator leads", leader, 180)
    wait_done(*(f"ingest-{site}" for site in SITES), deadline_s=420)
    start(*(f"agent-{site}" for site in SITES))
    check(not reaches("agent-lga", "coordinator-ewr"), "one region reaches another through the wide area only")


def reaches(one: str, other: str) -> bool:
    """Whether a container can connect to, or is refused by, the address that another one has in its own network."""
    networks = json.loads(engine("inspect", container(other)).stdout)[0]["NetworkSettings"]["Networks"]
    [address] = [each["IPAddress"] for each in networks.values()]
    look = f"import socket; print(socket.socket().connect_ex(({address!r}, 50551)))"
    said = engine("exec", container(one), "timeout", "5", "python", "-c", look).stdout.strip()
    return said in ("0", str(errno.ECONNREFUSED))


def take_down() -> None:
    compose("down", "-v")
    if ENGINE == "podman":
        engine("network", "rm", *(f"{PROJECT}_{site}" for site in SITES))


def launch(name: str, rounds: int) -> None:
    if engine("ps", "-aq", f"--filter=name={PROJECT}.job").stdout.strip():
        engine("rm", "-f", container("job"))
    start("job", GEOTRAIN_JOB=name, GEOTRAIN_ROUNDS=str(rounds))


def the_main_job_reaches_its_numbers() -> None:
    launch("main", 6)
    seen = wait_for("the main job ends", lambda: ended("main"), 600)
    check(seen["status"] == "finished", f"the main job is finished: {seen['reason']}")
    auc = {each["site"]: each["metrics"]["localized"] for each in seen["localized"]}
    check(all(auc.get(site, 0) >= MIN_AUC[site] for site in SITES), f"localized ROC AUC {auc} reaches {MIN_AUC}")
    check(all(round["cut"]["equal"] for round in seen["history"] if round["cut"]), "every cut was the same everywhere")


def a_region_that_dies_is_not_waited_for_and_catches_up() -> None:
    launch("region", MANY_ROUNDS)
    wait_for("round 2 is open", lambda: is_in_round("region", 2), 240)
    engine("kill", container("agent-lga"))
    seen = wait_for("a round is committed without lga", lambda: committed_without("lga", "region"), 240)
    check(seen["round"] >= 2, f"round {seen['round']} closed without lga: {seen['commit']['reason']}")
    check(site_state("lga") in ("silent", "gone"), "that lga is not here is said")
    check(control("pause", "region"), "an operator pauses the job")
    engine("start", container("agent-lga"))
    wait_for("lga is here again", lambda: site_state("lga") == "here", 180)
    check(control("resume", "region"), "an operator resumes it")
    seen = wait_for("the job ends", lambda: ended("region"), 600)
    check(seen["status"] == "finished", f"the job is finished: {seen['reason']}")
    check("lga" in seen["history"][-1]["commit"]["weights"], "lga was in the last round")
    check({each["site"] for each in seen["localized"]} == set(SITES), "all three regions have a model of their own")


def a_standby_goes_on_in_the_same_round() -> None:
    launch("leader", MANY_ROUNDS)
    wait_for("round 2 is open", lambda: is_in_round("leader", 2), 240)
    first, before = leader(), job("leader")["history"]
    engine("kill", container(first))
    second = wait_for("the other leads", lambda: (now := leader()) != first and now, 120)
    seen = wait_for("the job ends", lambda: ended("leader"), 600)
    check(seen["status"] == "finished", f"{second} finished what {first} began: {seen['reason']}")
    opened = [(each["round"], each["opened_s"]) for each in seen["history"]]
    check(all((each["round"], each["opened_s"]) in opened for each in before), "no round was opened a second time")
    engine("start", container(first))


def what_is_finished_stays_so_after_down_and_up() -> None:
    before = job("main")
    compose("down")
    bring_up()
    launch("main", 6)
    wait_done("job", deadline_s=120)
    after = job("main")
    check(after["history"] == before["history"], "the finished job is known, and was not repeated")
    check(after["localized"] == before["localized"], "its states are still there")


def main() -> None:
    keep = sys.argv[1:] == ["--keep"]
    if not shutil.which(COMPOSE[0]):
        print("not run: neither a Docker Engine with compose nor podman-compose is there")
        return
    started_s = time.monotonic()
    build()
    take_down()
    try:
        bring_up()
        the_main_job_reaches_its_numbers()
        a_region_that_dies_is_not_waited_for_and_catches_up()
        a_standby_goes_on_in_the_same_round()
        what_is_finished_stays_so_after_down_and_up()
    finally:
        if not keep:
            take_down()
    print(f"all held, in {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
