"""Who scans a round's cut, who goes on without, and when another one is taken: decided without phases and deadlines."""

from dataclasses import replace

import numpy as np
import pytest

from coordinator.events import CutReported, CutRowsListed, Held, SitePrepared
from coordinator.facts import CommitFacts, CutFacts, RoundFacts, proof
from coordinator.roundcut import GoOn, ListRows, RoundCut, Scan
from geotrain.view.cut import Rows

SITES = {"ewr", "jfk", "lga"}
ZEROS = {"legs": np.zeros(4096, np.uint64)}
OTHERS = {"legs": np.ones(4096, np.uint64)}
DECIDED = CutFacts(decided_s=0, rows=10, dropped=0, equal=True, proof=proof(ZEROS))
LEFT = RoundFacts(round=1, sites=("ewr", "jfk", "lga"), cut=DECIDED)
DROPPED = replace(LEFT, cut=replace(DECIDED, dropped=3))
UPDATE = Held(1, 7)
"""That the round asks for."""


def said(facts: RoundFacts, *prepared: SitePrepared) -> RoundCut:
    """The round as its sites have said what they have."""
    cut = RoundCut(facts, min_sites=2)
    cut.prepared = {one.site: one for one in prepared}
    return cut


def read(found: dict[str, np.ndarray], *sites: str) -> dict[str, CutReported]:
    return {site: CutReported(site, 1, {"legs": 10}, found) for site in sites}


def rows(*generations: int) -> Rows:
    digests = np.arange(len(generations) * 20, dtype=np.uint8).reshape(-1, 20)
    return Rows(digests, np.array(generations, np.uint32))


def test_who_holds_the_update_or_the_cut_goes_on_and_no_one_scans():
    cut = said(LEFT, SitePrepared("ewr", UPDATE, 0), SitePrepared("jfk", None, 1), SitePrepared("lga", UPDATE, 1))
    assert cut.take_up(SITES, UPDATE) == GoOn(SITES)


@pytest.mark.parametrize("held", [None, Held(1, 6), Held(2, 7), Held(0, 7)])
def test_who_holds_another_update_scans_the_same_cut_again(held):
    cut = said(LEFT, SitePrepared("ewr", UPDATE), SitePrepared("jfk", UPDATE), SitePrepared("lga", held))
    assert cut.take_up(SITES, UPDATE) == Scan({"lga"}, 1, {"ewr", "jfk"})
    step = cut.compare(read(ZEROS, "lga"), {"ewr", "jfk"}, UPDATE)
    assert (step.sites, step.lost) == (SITES, {})
    assert (step.decided.sites, step.decided.drop) == (("lga",), {})
    assert cut.can_answer("lga", UPDATE)


def test_who_finds_other_rows_in_the_cut_is_left_out_where_there_are_enough_without_it():
    cut = said(LEFT, SitePrepared("ewr", UPDATE), SitePrepared("jfk", UPDATE), SitePrepared("lga"))
    cut.take_up(SITES, UPDATE)
    step = cut.compare(read(OTHERS, "lga"), {"ewr", "jfk"}, UPDATE)
    why = "round 1's cut can't be read again: rows of it were written since"
    assert step == GoOn({"ewr", "jfk"}, None, {"lga": why})
    assert not cut.can_answer("lga", UPDATE)


def test_a_cut_that_dropped_rows_is_not_scanned_again_in_vain():
    cut = said(DROPPED, SitePrepared("ewr", UPDATE), SitePrepared("jfk", UPDATE), SitePrepared("lga"))
    step = cut.take_up(SITES, UPDATE)
    assert step.sites == {"ewr", "jfk"}
    assert "it dropped rows that the ledger does not name" in step.lost["lga"]


def test_where_a_site_is_needed_that_can_not_have_the_cut_again_all_that_have_not_trained_take_another_one():
    cut = said(LEFT, SitePrepared("ewr", UPDATE), SitePrepared("jfk"), SitePrepared("lga", None, 2))
    assert cut.take_up(SITES, UPDATE) == Scan({"jfk", "lga"}, 1, {"ewr"})
    assert cut.compare(read(OTHERS, "jfk", "lga"), {"ewr"}, UPDATE) == Scan({"jfk", "lga"}, 2, {"ewr"})
    assert cut.why_anew.startswith("; jfk, lga: round 1's cut can't be read again")
    step = cut.compare(read(OTHERS, "jfk", "lga"), {"ewr"}, UPDATE)
    assert (step.sites, step.decided.sites) == (SITES, ("jfk", "lga"))
    assert (cut.why_anew, cut.facts.cut_number, cut.facts.cut.proof) == ("", 2, proof(OTHERS))


@pytest.mark.parametrize("facts", [LEFT, DROPPED])
def test_as_long_as_nobody_has_trained_all_take_another_cut_and_none_is_left_out(facts):
    cut = said(facts, SitePrepared("ewr", None, 1), SitePrepared("jfk", None, 1), SitePrepared("lga"))
    step = cut.take_up(SITES, UPDATE)
    if facts is LEFT:
        step = cut.compare(read(OTHERS, "lga"), {"ewr", "jfk"}, UPDATE)
    assert step == Scan(SITES, 2)


def test_when_nobody_holds_anything_another_cut_is_decided():
    cut = said(LEFT, *(SitePrepared(site) for site in SITES))
    assert cut.take_up(SITES, UPDATE) == Scan(SITES, 2)
    assert cut.compare(read(OTHERS, *SITES), set(), UPDATE).sites == SITES


def test_who_has_joined_a_cut_of_the_round_that_was_replaced_is_not_taken_for_one_that_has_its_cut():
    facts = replace(LEFT, cut_number=2)
    cut = said(
        facts, SitePrepared("ewr", UPDATE, 1, 1), SitePrepared("jfk", None, 1, 2), SitePrepared("lga", None, 1, 1)
    )
    assert cut.take_up(SITES, UPDATE) == Scan({"lga"}, 2, {"ewr", "jfk"})
    assert cut.compare(read(ZEROS, "lga"), {"ewr", "jfk"}, UPDATE).sites == SITES


def test_no_site_is_left_without_a_state_of_its_own_since_the_last_rounds_cut_is_gone():
    own = Held(0, 9)
    cut = said(
        replace(LEFT, commit=CommitFacts(committed_s=0, version=9)),
        SitePrepared("ewr", own),
        SitePrepared("jfk", own),
        SitePrepared("lga"),
    )
    cut.take_up(SITES, own)
    assert cut.compare(read(OTHERS, "lga"), {"ewr", "jfk"}, own) == Scan({"lga"}, 2, {"ewr", "jfk"})


def test_sites_that_read_different_rows_list_them_and_who_left_meanwhile_has_no_say():
    cut = said(replace(LEFT, cut=None), *(SitePrepared(site) for site in SITES))
    cut.open(2, SITES)
    differing = ZEROS["legs"].copy()
    differing[3] = 9
    reports = read(ZEROS, "ewr", "jfk") | read({"legs": differing}, "lga")
    assert cut.compare(reports, set(), UPDATE) == ListRows({"legs": [3]})
    same = {site: CutRowsListed(site, 2, {"legs": rows(1, 1)}) for site in ("ewr", "jfk")}
    assert cut.reconcile(same, set()).decided.drop["legs"].size == 0
    other = {"lga": CutRowsListed("lga", 2, {"legs": rows(1, 2)})}
    step = cut.reconcile(same | other, set())
    assert step.sites == SITES
    assert step.decided.drop["legs"].tolist() == rows(1, 2).digests[1:].tolist()


def test_where_all_that_scan_leave_the_others_go_on_with_what_they_hold():
    cut = said(LEFT, SitePrepared("ewr", UPDATE), SitePrepared("jfk", UPDATE), SitePrepared("lga"))
    cut.take_up(SITES, UPDATE)
    assert cut.compare({}, {"ewr", "jfk"}, UPDATE) == GoOn({"ewr", "jfk"})
