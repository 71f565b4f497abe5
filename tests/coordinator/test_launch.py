"""What a follower takes for news, whoever tells the job from its start again."""

from coordinator.launch import Told
from geotrain.rpc import coordinator_pb2 as pb


def cut(time_s: float, rows: int, number: int = 1) -> pb.JobEvent:
    return pb.JobEvent(time_s=time_s, cut=pb.CutEvent(round=number, rows=rows))


def progress(time_s: float) -> pb.JobEvent:
    return pb.JobEvent(time_s=time_s, site=pb.SiteEvent(site="ewr"))


REPLACED_TWICE = [cut(1, rows=100), cut(2, rows=90), cut(3, rows=100)]


def test_a_cut_that_replaces_another_is_told_though_it_says_what_an_earlier_one_said():
    told = Told()
    assert [told.is_news(event) for event in REPLACED_TWICE] == [True, True, True]


def test_a_job_that_is_told_again_from_its_start_is_no_news_until_where_it_was_left():
    told = Told()
    happened = [pb.JobEvent(started=pb.JobStarted()), *REPLACED_TWICE, progress(4)]
    assert all(map(told.is_news, happened))
    assert not any(map(told.is_news, happened))
    assert told.is_news(progress(5))
    assert told.is_news(cut(5, rows=90))


def test_after_a_restart_only_the_last_cut_of_a_round_is_told_and_is_no_news():
    told = Told()
    for event in REPLACED_TWICE:
        told.is_news(event)
    assert not told.is_news(cut(3, rows=100))
    assert not told.is_news(cut(6, rows=100)), "another one that says the same"
    assert told.is_news(cut(7, rows=100, number=2))


def test_the_cut_of_a_leader_whose_clock_is_behind_is_news():
    told = Told()
    for event in (*REPLACED_TWICE, progress(4)):
        told.is_news(event)
    assert told.is_news(cut(-3600, rows=80))
