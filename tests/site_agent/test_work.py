"""What a site does for a job: it answers for its rows, takes part in the cut, joins, and reads what it trains from."""

import json
import threading
from types import SimpleNamespace

import polars as pl
import pytest

from geotrain.errors import ConfigError, DataError, GeotrainError
from geotrain.rpc import coordinator_pb2 as pb
from geotrain.states.lookup import ModelLookup
from geotrain.view.refusals import Refusal
from geotrain.view.write import write
from tests.site_agent.asked import FAR_FUTURE_NS, NOON
from tests.tasks.pumps import pumps


def test_a_task_that_the_site_can_run_is_accepted_with_its_rows_counted(site):
    [answer] = site.prepare()
    assert answer.prepared.local_rows == 3


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"local.visits.path": "visitors.parquet"}, DataError, "there is no file .*visitors.parquet"),
        ({"local.readings.columns.pump": "int64", "join.0.by": {"pump": "pump"}}, ConfigError, "pump"),
        ({"local.readings.columns.depth": "float64"}, DataError, "column depth"),
        ({"name": "flights"}, GeotrainError, "task.name: 'flights' is not allowed at site ewr"),
        ({"loss._target_": "os.system"}, ConfigError, "task.loss._target_: 'os.system' is not allowed here"),
    ],
)
def test_a_task_that_the_site_cannot_or_will_not_run_is_refused_before_the_first_round(site, changes, error, reason):
    # As the coordinator would send it: the site checks for itself.
    raw = json.loads(site.task.to_json())
    for path, value in changes.items():
        *parents, last = path.split(".")
        block = raw
        for name in parents:
            block = block[int(name)] if name.isdigit() else block[name]
        block[last] = value
    with pytest.raises(error, match=reason):
        site.ask("prepare", pb.Prepare(job="j", task_json=json.dumps(raw)))


def test_a_cut_is_joined_once_however_many_rounds_read_it(site):
    site.prepare()
    for number in (1, 2, 3):
        assert site.scan(number)["alarms"].rows == 2
        site.decide(number)
    assert len(site.notes.joins) == 1
    write(site.view, pl.DataFrame({"id": [1], "maker": ["m"], "raised_at": [NOON], "level": [9.0]}), "alarms", "id")
    site.scan(4)
    site.decide(4)
    assert sorted(site.notes.joins[1]["alarms"].table["level"].to_pylist()) == [2.0, 9.0]


def test_a_set_that_is_only_looked_up_is_not_reported_and_is_joined_anew_at_every_cut(site):
    site.prepare(pumps({"name": site.task.name, "view.kinds.key": "kind", "join.1.plan": "lookup"}))
    for number in (1, 2):
        [answer] = site.ask("scan_cut", pb.ScanCut(job="j", round=number, until_ns=FAR_FUTURE_NS + number))
        assert [report.set for report in answer.cut_report.sets] == ["alarms"]
        site.decide(number)
    assert len(site.notes.joins) == 2


def test_rows_that_other_sites_read_differently_are_left_out_of_the_join(site):
    site.prepare()
    site.scan()
    request = pb.ListCutRows(job="j", round=1)
    request.sets.add(set="alarms", partitions=range(4096))
    [answer] = site.ask("list_cut_rows", request)
    [listed] = answer.cut_rows.sets
    assert len(listed.digests) == 40
    site.decide(drop=listed.digests[:20])
    assert site.notes.joins[0]["alarms"].num_rows == 1


@pytest.fixture
def reads(site, monkeypatch):
    """The versions that the site has read, in order, and who read them; once it fails for each of `fail`."""
    reads, read = SimpleNamespace(versions=[], threads=set(), fail=[]), ModelLookup.at

    def at(lookup, version):
        reads.versions.append(version)
        reads.threads.add(threading.current_thread())
        if version in reads.fail:
            reads.fail.remove(version)
            raise Refusal("reading: nobody answers", "see its nodes")
        return read(lookup, version)

    monkeypatch.setattr(ModelLookup, "at", at)
    return reads


def test_the_next_base_is_read_when_it_is_committed_and_not_again_when_it_is_trained_from(site, reads):
    site.prepare()
    version = site.publish(5.0)
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=version))
    site.scan()
    site.decide()
    site.ask("train", pb.Train(job="j", round=2, base_version=version))
    assert reads.versions == [version]
    assert threading.current_thread() not in reads.threads


def test_a_base_that_could_not_be_read_ahead_or_is_another_one_is_read_when_it_is_asked_for(site, reads):
    site.get_ready()
    first, second = site.publish(5.0), site.publish(6.0)
    reads.fail = [first]
    site.ask("round_committed", pb.RoundCommitted(job="j", round=1, version=first))
    site.ask("train", pb.Train(job="j", round=2, base_version=first))
    assert reads.versions == [first, first]
    site.ask("round_committed", pb.RoundCommitted(job="j", round=2, version=first))
    site.ask("train", pb.Train(job="j", round=3, base_version=second))
    assert sorted(reads.versions) == [first, first, first, second]


def test_workers_are_given_their_rows_once_for_one_encoding(site):
    site.get_ready()
    for number in (1, 2):
        site.ask("train", pb.Train(job="j", round=number, base_version=site.publish(float(number))))
    assert len(site.notes.encodings) == 1


def test_workers_that_were_started_while_their_job_ended_are_let_go(site):
    site.get_ready()
    training = site.work.handle("train", pb.Train(job="j", round=1, base_version=site.publish(5.0)))
    next(training)
    site.work.end()
    site.notes.released.clear()
    list(training)
    assert site.notes.released == ["j"]


def test_a_job_that_comes_back_with_another_task_is_refused(site):
    site.prepare()
    with pytest.raises(GeotrainError, match="another task or seed"):
        site.ask("prepare", pb.Prepare(job="j", task_json=site.task.to_json(), seed=2))


def test_who_is_prepared_again_says_which_cut_it_has_joined_and_keeps_it(site):
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 0
    site.scan(3)
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 0
    site.decide(3)
    [answer] = site.prepare()
    assert answer.prepared.cut_round == 3
    site.ask("train", pb.Train(job="j", round=3, base_version=site.publish(5.0)))
    assert len(site.notes.joins) == 1
