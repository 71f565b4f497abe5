"""The commands of `geotrain`: each reads the leader's snapshot, or asks it to change a job, and prints what it says."""

import asyncio
from typing import Annotated

import typer

from coordinator.cli import client, models, show
from coordinator.cli.output import print_either
from geotrain.errors import GeotrainError
from geotrain.program import exit_with
from geotrain.rpc.tls import OPERATOR, Identity, TlsConfig, load

EXIT_CODES = {
    0: "done",
    1: "an error that has no code of its own",
    2: "the command line is wrong",
    client.NoCoordinator.exit_code: "no coordinator answers, or none leads; no view, or one that can't be relied on",
    client.NoSuchJob.exit_code: "no such job, round or model state; a file that can't be read",
    client.Refused.exit_code: "the coordinator refused, and said why",
    130: "interrupted by Ctrl-C",
}

app = typer.Typer(
    name="geotrain",
    help="Show what the coordinator does, pause, resume or cancel its jobs; show model states, and move aliases.",
    epilog=f"Exit codes: {'; '.join(f'{code}: {meaning}' for code, meaning in EXIT_CODES.items())}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app)

Coordinator = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        envvar="GEOTRAIN_COORDINATOR",
        help="The coordinator's http_listen; of several, with commas between them, the one that leads answers.",
    ),
]
Tls = Annotated[
    str,
    typer.Option(
        metavar="FOLDER",
        envvar="GEOTRAIN_TLS",
        help="Where ca.pem, cert.pem and key.pem are, the operator's, if the coordinator speaks mutual TLS.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as docs/reference/snapshot.md describes it.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's name, as `geotrain jobs` shows it.")]
Reason = Annotated[str, typer.Option(help="What those who follow the job are told; by default, who asked.")]

DEFAULT = "127.0.0.1:50552"


@app.command(epilog="Example: geotrain status --coordinator eu.example:50552,us.example:50552")
def status(coordinator: Coordinator = DEFAULT, as_json: AsJson = False) -> None:
    """Who leads, which sites are here and what they do, which jobs there are and what each waits for.

    JSON: the leader's snapshot, or a standby's where none leads.
    """
    found = client.look(_addresses(coordinator))
    shown = found.leader or next(iter(found.snapshots))
    print_either(found.snapshots[shown], show.status(found.snapshots, found.leader, found.failures), as_json)
    if found.leader is None:
        raise typer.Exit(client.NoCoordinator.exit_code)


@app.command(epilog="Example: geotrain jobs --json")
def jobs(coordinator: Coordinator = DEFAULT, as_json: AsJson = False) -> None:
    """The jobs, the newest last: where each stands, and why. Of those that ended before this leader, the newest hundred
    are listed, and it says how many more there are.
    """
    seen = client.jobs(_addresses(coordinator))
    print_either(seen["jobs"], show.jobs(seen), as_json)


@app.command(epilog="Example: geotrain rounds flights-20260102-101500-ab12")
def rounds(job: JobName, coordinator: Coordinator = DEFAULT, as_json: AsJson = False) -> None:
    """A job's rounds: version, rows, seconds, bytes, losses, and the sites that were not in them."""
    found = client.job(_addresses(coordinator), job)
    print_either(found, show.rounds(found), as_json)


@app.command(epilog="Example: geotrain sites")
def sites(coordinator: Coordinator = DEFAULT, as_json: AsJson = False) -> None:
    """The sites: whether each one's agent is here, when it was heard last, what it does; of one that is gone, why."""
    _, seen = client.leading(_addresses(coordinator))
    print_either(seen["sites"], show.sites(seen), as_json)


@app.command(epilog="Example: geotrain explain flights-20260102-101500-ab12 3")
def explain(
    job: JobName,
    number: Annotated[int, typer.Argument(metavar="ROUND", help="The round, from 1.")],
    coordinator: Coordinator = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """One round: why it closed, who was in it with which weight and loss, who was not and why, and what happened.

    What happened is known of rounds since the coordinator leads; all else of every round.
    """
    addresses = _addresses(coordinator)
    found = client.job(addresses, job)
    past = next((past for past in found["history"] if past["round"] == number), None)
    if past is None:
        raise client.NoSuchJob(
            f"job {job} has no round {number} yet: it is in round {found['round']} of {found['rounds']}",
            "`geotrain rounds JOB` lists those that there are.",
        )
    happened = [event for event in client.job_events(addresses, job) if event["round"] == number]
    happened = list(filter(show.Story().tells, happened))
    standing = [] if past["commit"] else found["standing"]
    print_either({**past, "standing": standing, "events": happened}, show.explain(found, past, happened), as_json)


@app.command(epilog="Example: geotrain logs flights-20260102-101500-ab12 --follow")
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    coordinator: Coordinator = DEFAULT,
    tls: Tls = "",
    as_json: AsJson = False,
) -> None:
    """A job's story: every change of its phase and of its sites', its cuts, its rounds, its end. JSON: an event a line.

    Of a time before the coordinator leads: cuts, rounds and the end.
    """
    addresses = _addresses(coordinator)
    if follow:
        asyncio.run(_follow(addresses, job, tls, as_json))
        return
    for event in filter(show.Story().tells, client.job_events(addresses, job)):
        print_either(event, show.event_line(event), as_json, indent=None)


async def _follow(addresses: list[str], job: str, tls: str, as_json: bool) -> None:
    story = show.Story()
    async for event in client.follow(addresses, job, _identity(tls)):
        if story.tells(event):
            print_either(event, show.event_line(event), as_json, indent=None)


@app.command(epilog="Example: geotrain pause flights-20260102-101500-ab12 --reason 'maintenance at ewr'")
def pause(
    job: JobName, reason: Reason = "", coordinator: Coordinator = DEFAULT, tls: Tls = "", as_json: AsJson = False
) -> None:
    """Let a job rest: its open round stays open, and its sites keep what they have finished. `resume` goes on there."""
    _control("pause", job, reason, coordinator, tls, as_json)


@app.command(epilog="Example: geotrain resume flights-20260102-101500-ab12")
def resume(
    job: JobName, reason: Reason = "", coordinator: Coordinator = DEFAULT, tls: Tls = "", as_json: AsJson = False
) -> None:
    """Let a paused job go on where it was."""
    _control("resume", job, reason, coordinator, tls, as_json)


@app.command(epilog="Example: geotrain cancel flights-20260102-101500-ab12 --reason 'wrong data'")
def cancel(
    job: JobName, reason: Reason = "", coordinator: Coordinator = DEFAULT, tls: Tls = "", as_json: AsJson = False
) -> None:
    """End a job for good. What it has published stays; what its sites hold of it is dropped."""
    _control("cancel", job, reason, coordinator, tls, as_json)


def _control(action: str, job: str, reason: str, coordinator: str, tls: str, as_json: bool) -> None:
    now = client.control(_addresses(coordinator), job, action, reason, _identity(tls))
    print_either(now, show.controlled(now), as_json)


def _identity(tls: str) -> Identity | None:
    return load(TlsConfig.in_folder(tls), OPERATOR)


def _addresses(coordinator: str) -> list[str]:
    found = list(dict.fromkeys(each.strip() for each in coordinator.split(",") if each.strip()))
    if not found:
        raise typer.BadParameter("no address: HOST:PORT is needed", param_hint="--coordinator")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run a command, by default the one that was typed. A GeotrainError becomes two lines and its exit code."""
    try:
        app(arguments, prog_name="geotrain")
    except GeotrainError as error:
        exit_with(error)
