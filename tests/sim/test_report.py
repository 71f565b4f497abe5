"""The report tells what was reached, what was not, and in which words."""

import io
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from sim.page import write_page
from sim.report import Facts, rows_moved, show, to_json, verdicts, write_json
from tests.sim import events


@pytest.fixture
def facts() -> Facts:
    return events.facts()


def short(facts: Facts) -> list[str]:
    return [verdict.what for verdict in verdicts(facts) if not verdict.reached]


def test_the_json_has_the_agreed_format(facts: Facts, tmp_path: Path) -> None:
    write_json(facts, tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["wall_s"] == 214.3
    assert {"consistency": "strong", "racks": 3}.items() <= told["view"].items()
    first = told["rounds"][0]
    assert {"round": 1, "bytes_up": 1_300_000, "bytes_down": 900_000}.items() <= first.items()
    assert first["cut"] == {"rows": 330_668, "dropped": 0, "equal": True}
    assert first["loss"].keys() == {"ewr", "jfk", "lga"}
    assert isinstance(first["seconds"], float)
    assert told["sites"]["ewr"]["auc"] == {"local_only": 0.694, "global": 0.744, "localized": 0.7512}
    assert told["sites"]["ewr"]["rows"] == 90_000
    assert told["sites"]["ewr"]["state"] == "flights/site/ewr@1"
    assert {"state_p50_us", "state_p99_us", "key_p50_us", "key_p99_us"} <= told["lookup"].keys()
    assert told["rows_moved"] == 0


def test_a_threshold_that_is_missed_falls_short_and_no_other(facts: Facts) -> None:
    assert short(facts) == ["jfk AUC"]
    facts.min_auc["jfk"] = 0.72
    assert short(facts) == []
    facts.min_gain = 0.06
    assert short(facts) == ["ewr gain"]


def test_a_published_state_that_scores_otherwise_than_reported_falls_short(facts: Facts) -> None:
    facts.measured.auc_by_lookup["lga"] -= 0.01
    assert "lga by look-up" in short(facts)


def test_a_site_without_a_model_is_named(facts: Facts) -> None:
    del facts.history.localized["lga"]
    assert "every site has its model:" in short(facts)


def test_rows_on_the_wire_and_records_that_nobody_declared_are_rows_that_moved(facts: Facts) -> None:
    facts.rows_found["ewr"]["flights"] = 3
    facts.undeclared["strangers"] = 2
    assert rows_moved(facts) == 5
    assert "rows stayed:" in short(facts)


def test_a_capture_that_reached_its_limit_proves_nothing_and_says_so(facts: Facts) -> None:
    facts.wire["ewr"].captured = 10
    assert "rows stayed:" in short(facts)
    assert any("the capture reached its limit" in verdict.detail for verdict in verdicts(facts))


def test_without_thresholds_none_is_claimed(facts: Facts) -> None:
    facts.min_auc, facts.min_gain = {}, 0.0
    assert not any("AUC" in verdict.what or "gain" in verdict.what for verdict in verdicts(facts))


def page(facts: Facts, folder: Path) -> str:
    write_page(facts, folder / "report.html")
    return (folder / "report.html").read_text()


def test_the_page_stands_alone(facts: Facts, tmp_path: Path) -> None:
    loaded: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loaded.extend(str(value) for name, value in attrs if name in ("src", "href", "xlink:href"))

    Links().feed(page(facts, tmp_path))
    assert all(link.startswith("#") for link in loaded)


def test_the_pictures_are_whole_and_take_the_colour_of_the_page(facts: Facts, tmp_path: Path) -> None:
    text = page(facts, tmp_path)
    pictures = ["<svg" + part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 4
    for picture in pictures:
        ET.fromstring(picture)
        assert "currentColor" in picture
        assert "#000000" not in picture


def test_the_page_calls_a_simulated_cluster_simulated_and_an_eventual_one_eventual(
    facts: Facts, tmp_path: Path
) -> None:
    assert "simulated Aerospike cluster" in page(facts, tmp_path)
    facts.simulated = False
    facts.history.consistency = "eventual"
    text = page(facts, tmp_path)
    assert "simulated Aerospike cluster" not in text
    assert "eventual consistency" in text
    assert "strong consistency" not in text
    assert to_json(facts)["view"] == {"consistency": "eventual", "racks": 3, "cluster": "external"}


def test_what_others_wrote_is_escaped(facts: Facts, tmp_path: Path) -> None:
    facts.history.rounds[0].reason = "<script>alert(1)</script>"
    assert "<script" not in page(facts, tmp_path)


def test_the_terminal_shows_each_site_and_each_verdict(facts: Facts, tmp_path: Path) -> None:
    output = io.StringIO()
    show(facts, Console(file=output, width=100), tmp_path)
    text = output.getvalue()
    assert "flights/site/lga@1" in text
    assert text.count("reached") == 9
    assert text.count("falls short") == 1
    assert "wall time 214 s, peak memory 4.9 GB" in text
    assert "simulated cluster: strong consistency, 3 racks" in text
