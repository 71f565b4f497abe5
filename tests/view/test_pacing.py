from hypothesis import given
from hypothesis import strategies as st

from geotrain.view.pacing import Window


def answer(window, *outcomes):
    """Fills the window, then answers one batch for each outcome (whether it was overloaded)."""
    for overloaded in outcomes:
        tickets = []
        while window.has_room():
            tickets.append(window.sent())
        for ticket in tickets:
            window.answered(ticket, overloaded=overloaded)


def test_a_window_of_good_answers_makes_room_for_one_more():
    window = Window(limit=4, most=16)
    answer(window, False)
    assert 4.9 < window.limit < 5.1
    answer(window, *[False] * 30)
    assert window.limit == 16


def test_an_overload_halves_what_is_in_flight_down_to_one():
    window = Window(limit=8, most=16)
    answer(window, True)
    assert window.limit == 4
    answer(window, True, True, True, True)
    assert window.limit == 1


def test_batches_from_before_a_decrease_do_not_decrease_again():
    window = Window(limit=8, most=16)
    tickets = [window.sent() for _ in range(8)]
    for ticket in tickets:
        window.answered(ticket, overloaded=True)
    assert window.limit == 4


def test_what_is_in_flight_beyond_a_halved_window_must_come_back_first():
    window = Window(limit=4, most=16)
    tickets = [window.sent() for _ in range(4)]
    window.answered(tickets[0], overloaded=True)
    assert not window.has_room()
    window.answered(tickets[1], overloaded=False)
    assert not window.has_room()
    window.answered(tickets[2], overloaded=False)
    assert window.has_room()


@given(st.lists(st.sampled_from(["send", "good", "overload"])), st.integers(1, 16))
def test_whatever_happens_no_more_than_the_limit_are_sent_and_something_can_be(events, most):
    window, tickets = Window(limit=min(4, most), most=most), []
    for event in events:
        if event == "send" and window.has_room():
            tickets.append(window.sent())
        elif event != "send" and tickets:
            window.answered(tickets.pop(0), overloaded=event == "overload")
        assert 1 <= window.limit <= most
        assert window.num_in_flight == len(tickets) <= most
        assert tickets or window.has_room()
