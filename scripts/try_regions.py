"""Starts docker-compose.multisite.yml, breaks it, and asserts from outside, by report and command line, that it holds.

`python -m scripts.try_regions` (make test-compose), with docker compose or podman-compose; 14 minutes on two cores.
Leaves nothing running; `--keep` leaves everything as it is.
"""

import errno
import re
import sys
import time
from typing import Any

from scripts.containers import Containers, NoEngine
from scripts.regions import COORDINATORS, POLL_S, SITES, Regions, check, wait_for

FILE = "docker-compose.multisite.yml"
# What configs/scenario/three_regions.yaml has the main job reach.
MIN_AUC = {"ewr": 0.745, "jfk": 0.720, "lga": 0.755}
CUT_S = 30.0
# A leader that took over since has not seen it at all.
NOT_HERE = ("silent", "gone", "unseen")
# The main job, and the one that is disturbed: with so many rounds it is still under way when it is looked at.
MAIN, TRIED = "flights-main", "flights-tried"
MANY_ROUNDS = 36


def regions_are_apart(regions: Regions) -> None:
    """A container of one can neither connect to, nor be refused by, the address that another has in its own network."""
    networks = regions.containers.inspect("coordinator-ewr")["NetworkSettings"]["Networks"]
    [address] = [each["IPAddress"] for each in networks.values()]
    look = f"import socket; print(socket.socket().connect_ex(({address!r}, 50551)))"
    said = regions.containers.inside("agent-lga", "timeout", "5", "python", "-c", look).stdout.strip()
    check(said not in ("0", str(errno.ECONNREFUSED)), "one region reaches another through the wide area only")


def the_main_job_reaches_its_numbers(regions: Regions) -> None:
    regions.containers.start("job")
    seen = wait_for("the main job ends", lambda: regions.ended(MAIN), 600)
    check(seen["status"] == "finished", f"the main job is finished: {seen['reason']}")
    regions.wait_done("job", deadline_s=30)
    report = regions.report()
    auc = {site: each["metrics"]["localized"] for site, each in report["sites"].items()}
    check(all(auc.get(site, 0) >= MIN_AUC[site] for site in SITES), f"localized ROC AUC {auc} reaches {MIN_AUC}")
    check(len(report["rounds"]) == 6, "in 6 rounds")
    check(all(round["cut"]["equal"] for round in report["rounds"]), "every cut was the same everywhere")
    told = {each["site"]: each["metrics"]["localized"] for each in seen["localized"]}
    check(auc == told, "the command line says the same as the report")


def launch_the_job_that_is_disturbed(regions: Regions) -> None:
    """One whose rounds take updates however late they come: then whatever is trained must be counted."""
    command = ["coordinator.launch", f"coordinator={regions.leader()}:50551", "request_id=tried"]
    command += [f"rounds={MANY_ROUNDS}", f"strategy.max_staleness={MANY_ROUNDS}"]
    command += [f"tls.{name}=/run/tls/{name}.pem" for name in ("ca", "cert", "key")]
    launcher = f"{regions.containers.project}-launcher"
    regions.operator(*command, options=("-d", f"--name={launcher}"))
    wait_for("round 2 is open", lambda: regions.job(TRIED)["round"] >= 2, 300)
    regions.containers.run("rm", "-f", launcher)  # a job goes on when nobody follows it


def a_region_that_dies_is_not_waited_for_and_catches_up(regions: Regions) -> None:
    regions.containers.run("kill", *map(regions.containers.id, ("node-lga", "agent-lga")))
    closed = wait_for(
        "a round is committed without lga", lambda: regions.committed(TRIED, lambda weights: "lga" not in weights), 240
    )
    check("lga" in closed["commit"]["absent"], f"why is said: {closed['commit']['absent'].get('lga')}")
    wait_for("that lga is not here is said", lambda: regions.site("lga")["state"] in NOT_HERE, 60)
    is_dead = re.compile("node=lga;.*state=down")
    wait_for("its node has died with its container", lambda: is_dead.search(regions.order("cluster", "state")), 60)
    check(regions.control("pause", TRIED), "an operator pauses the job")
    regions.containers.run("start", regions.containers.id("node-lga"))
    regions.wait_healthy("node-lga", deadline_s=60)
    regions.containers.run("start", regions.containers.id("agent-lga"))
    wait_for("lga is here again", lambda: regions.site("lga")["state"] == "here", 180)
    check(regions.control("resume", TRIED), "an operator resumes it")
    wait_for("a round is committed with lga", lambda: regions.committed(TRIED, lambda weights: "lga" in weights), 240)


def a_cut_of_half_a_minute_loses_nothing_and_kills_nobody(regions: Regions) -> None:
    started = regions.containers.inspect("agent-lga")["State"]["StartedAt"]
    before = regions.asked("status")["coordinator"]
    check(regions.job(TRIED)["status"] == "running", "the job runs when the link is cut")
    begun_s = time.monotonic()
    for service in ("wan", "cluster"):
        regions.order(service, "cut:site=lga")
    wait_for("that lga is not heard is said", lambda: regions.site("lga")["state"] in ("silent", "gone"), CUT_S)
    seen: list[Any] = []
    while time.monotonic() - begun_s < CUT_S or not seen:
        seen.append(regions.asked("status"))
        time.sleep(POLL_S)
    for service in ("wan", "cluster"):
        regions.order(service, "heal")
    told = [{each["site"]: each["state"] for each in one["sites"]} if one else {} for one in seen]
    check(all(states.get("lga") in ("silent", "gone") for states in told), "all the while lga is said not to be heard")
    check(all(states.get(site) == "here" for states in told for site in ("ewr", "jfk")), "and the others to be here")
    epochs = {one["coordinator"]["epoch"] for one in seen if one}
    check(epochs == {before["epoch"]}, f"{before['address']} leads all the while, under epoch {before['epoch']}")
    wait_for("lga is here again", lambda: regions.site("lga")["state"] == "here", 60)
    wait_for("a round is committed with lga", lambda: regions.committed(TRIED, lambda weights: "lga" in weights), 240)
    check(regions.containers.inspect("agent-lga")["State"]["StartedAt"] == started, "its agent has run all the while")
    regions.wait_healthy("agent-lga", deadline_s=60)


def a_standby_goes_on_in_the_same_round(regions: Regions) -> None:
    first, before = regions.leader(), regions.job(TRIED)["history"]
    check(regions.job(TRIED)["status"] == "running", f"the job runs when {first} is killed")
    regions.containers.run("kill", regions.containers.id(first))
    second = wait_for("the other leads", lambda: (now := regions.leader()) != first and now, 120)
    number = before[-1]["round"]
    wait_for(f"{second} commits round {number}", lambda: regions.job(TRIED)["round"] > number, 240)
    opened = [(each["round"], each["opened_s"]) for each in regions.job(TRIED)["history"]]
    check(all((each["round"], each["opened_s"]) in opened for each in before), "no round was opened a second time")
    regions.containers.run("start", regions.containers.id(first))


def trained(regions: Regions, site: str) -> list[int]:
    """The rounds that a site's agent has begun to train, since it was started last, as it tells."""
    *_, now = regions.containers.logs(f"agent-{site}").split("gRPC is mutual TLS")
    return [int(number) for number in re.findall(rf"job {TRIED}: trains round (\d+) ", now)]


def counted(history: Any, site: str) -> set[int]:
    """The rounds whose updates of a site are in the commits."""
    commits = [(each["round"], each["commit"]) for each in history if each["commit"]]
    return {number - commit["staleness"].get(site, 0) for number, commit in commits if site in commit["weights"]}


def replaced(regions: Regions, site: str) -> set[int]:
    """The rounds whose late updates of a site a newer one has replaced, as coordinators tell."""
    told = "".join(map(regions.containers.logs, COORDINATORS))
    return set(map(int, re.findall(rf"update of {site} for round (\d+) dropped: a newer update of {site}", told)))


def all_is_there_again_after_down_and_up(regions: Regions) -> None:
    main, tried = regions.job(MAIN), regions.job(TRIED)
    check(tried["status"] == "running", "the other job is unfinished")
    begun = {site: trained(regions, site) for site in SITES}
    newer = {site: replaced(regions, site) for site in SITES}
    regions.containers.down()
    regions.bring_up()
    regions.containers.start("job")
    regions.wait_done("job", deadline_s=120)
    after = regions.job(MAIN)
    check(after["history"] == main["history"], "the finished job is known, and was not repeated")
    check(after["localized"] == main["localized"], "its states are still there")
    seen = wait_for("the unfinished one ends", lambda: regions.ended(TRIED), 600)
    check(seen["status"] == "finished", f"it went on, and is finished: {seen['reason']}")
    past = [each for each in tried["history"] if each["commit"]]
    check(seen["history"][: len(past)] == past, f"its first {len(past)} rounds are as they were")
    check({each["site"] for each in seen["localized"]} == set(SITES), "all three regions have a model of their own")
    for site, numbers in begun.items():
        check(len(numbers) == len(set(numbers)), f"{site} trained each of {len(numbers)} rounds once")
        lost = set(numbers) - counted(seen["history"], site) - newer[site]
        check(not lost, f"every update of {site} is counted; lost: {sorted(lost) or 'none'}")


def main() -> None:
    try:
        containers = Containers("geotrain-try", FILE)
    except NoEngine as reason:
        print(f"test-compose is not run: {reason}")
        return
    started_s = time.monotonic()
    containers.build("job")
    regions = Regions(containers)
    regions.take_down()
    try:
        regions.bring_up()
        for assertion in (
            regions_are_apart,
            the_main_job_reaches_its_numbers,
            launch_the_job_that_is_disturbed,
            a_region_that_dies_is_not_waited_for_and_catches_up,
            a_cut_of_half_a_minute_loses_nothing_and_kills_nobody,
            a_standby_goes_on_in_the_same_round,
            all_is_there_again_after_down_and_up,
        ):
            print(f"{time.monotonic() - started_s:.0f} s: {assertion.__name__}", flush=True)
            assertion(regions)
    except SystemExit:
        regions.show_logs()
        raise
    finally:
        if sys.argv[1:] != ["--keep"]:
            regions.take_down()
    print(f"all held, in {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
