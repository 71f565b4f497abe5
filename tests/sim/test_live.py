"""What is shown while the demo runs: a table on a terminal, lines in the log elsewhere."""

import io
import logging

import pytest
from rich.console import Console

from sim.history import History
from sim.live import Screen, headline, human_bytes, table
from tests.sim import events


def rendered(told: History) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table(told))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_the_table_has_a_row_a_site_with_phase_round_rows_loss_and_bytes() -> None:
    told = events.history(events.job(1)[:1])
    told.apply(events.progress(1, "jfk", "training", 2, 90_000, 0.51234))
    lines = rendered(told).splitlines()
    assert lines[1].split() == ["site", "phase", "round", "rows", "loss", "up", "down"]
    assert lines[3].split() == ["ewr", "waiting", "-", "-", "-", "0", "B", "0", "B"]
    assert lines[4].split() == ["jfk", "training", "2", "90,000", "0.5123", "800.0", "kB", "1.4", "MB"]


def test_the_headline_tells_round_consistency_cut_and_time() -> None:
    line = headline(events.history(), 83.9)
    assert "6 of 6 rounds" in line
    assert "strong consistency, 3 racks" in line
    assert "cut 6: 330,668 rows, equal" in line
    assert line.endswith("1:23")


def test_an_eventual_view_is_never_called_strong() -> None:
    told = events.history()
    told.consistency = "eventual"
    assert "eventual consistency" in headline(told, 0)
    assert "strong" not in headline(told, 0)


def test_without_a_terminal_every_change_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO())
    with caplog.at_level(logging.INFO, "sim"), Screen(console, 0) as screen:
        screen.say("write the data")
        screen.say("ewr: training, round 1", in_table=True)
    assert caplog.messages == ["write the data", "ewr: training, round 1"]


def test_on_a_terminal_the_table_shows_what_sites_do_and_lines_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    output = io.StringIO()
    with Screen(Console(file=output, force_terminal=True, width=100), 0) as screen:
        screen.follow(events.history(events.job(1)[:2]))
        screen.say("write the data")
        screen.say("ewr: training, round 1", in_table=True)
    assert "write the data" in output.getvalue()
    assert "preparing" in output.getvalue()
    assert "training, round 1" not in output.getvalue()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5e9, "5.0 GB")]
)
def test_bytes_are_told_with_a_unit(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_whoever_stops_the_demo_is_told_that_nothing_is_left() -> None:
    output = io.StringIO()
    with pytest.raises(SystemExit), Screen(Console(file=output), 0):
        raise SystemExit(130)
    assert "no process is left" in output.getvalue()
