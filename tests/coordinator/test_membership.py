"""Who is here and who is gone, without a stream or a clock."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.membership import Admit, Called, Drop, Heard, HungUp, Instruction, Membership, Refuse, State, Tick

HEARTBEAT_S = 2.0


class Driver:
    """A membership and its clock, that ticks as the sessions do."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.membership = Membership(HEARTBEAT_S)

    def __call__(self, event: Called | Heard | HungUp | Tick) -> list[Instruction]:
        return self.membership.handle(event, now_s=self.now_s)

    def call(self, stream: int, instance: str = "first", site: str = "ewr") -> list[Instruction]:
        return self(Called(stream, site, instance, "1.0"))

    def wait(self, heartbeats: float, *heard: int) -> list[Instruction]:
        """Let time pass; the `heard` streams send a heartbeat each."""
        done = []
        for quarter in range(int(heartbeats * 4)):
            self.now_s += HEARTBEAT_S / 4
            if quarter % 4 == 3:
                done += [one for stream in heard for one in self(Heard(stream))]
            done += self(Tick())
        return done

    def state(self, site: str = "ewr") -> State:
        return self.membership.members[site].state


def test_an_agent_that_calls_is_here_and_says_since_when():
    driver = Driver()
    assert driver.call(1) == [Admit(1)]
    member = driver.membership.members["ewr"]
    assert (member.state, member.since_s, member.version) == (State.HERE, 1000.0, "1.0")


def test_an_agent_that_is_not_heard_is_silent_then_gone_with_the_reason():
    driver = Driver()
    driver.call(1)
    assert driver.wait(1.75) == []
    assert driver.state() is State.HERE
    assert driver.wait(0.25) == []
    assert driver.state() is State.SILENT
    [drop] = driver.wait(2)
    assert drop == Drop(1, "silent for 8.0 s")
    assert driver.state() is State.GONE
    assert driver.membership.members["ewr"].reason == "silent for 8.0 s"


def test_a_silent_agent_that_is_heard_again_is_here():
    driver = Driver()
    driver.call(1)
    driver.wait(3)
    driver(Heard(1))
    assert driver.state() is State.HERE
    assert driver.wait(1.75) == []


def test_an_agent_that_trains_for_long_and_sends_its_heartbeats_is_never_given_up():
    driver = Driver()
    driver.call(1)
    assert driver.wait(100, 1) == []
    assert driver.state() is State.HERE


def test_who_hangs_up_is_gone_with_the_reason_and_may_call_again():
    driver = Driver()
    driver.call(1)
    assert driver(HungUp(1, "its stream broke")) == [Drop(1, "its stream broke")]
    assert driver.membership.members["ewr"].reason == "its stream broke"
    assert driver.call(2, "second") == [Admit(2)]


def test_an_agent_that_dials_again_takes_the_place_of_its_own_dead_stream_at_once():
    driver = Driver()
    driver.call(1)
    assert driver.call(2) == [Drop(1, "it dialled again"), Admit(2)]
    assert driver(HungUp(1, "its stream broke")) == [], "what becomes of the old stream is no news"
    assert driver.state() is State.HERE


def test_a_restarted_agent_takes_the_place_of_a_dead_one_whose_stream_still_stands():
    driver = Driver()
    driver.call(1)
    driver.wait(0.5)
    assert driver.call(2, "restarted") == []
    drop, admit = driver.wait(1.5)
    assert (drop.stream, admit) == (1, Admit(2))


def test_a_last_heartbeat_that_was_on_its_way_does_not_lock_out_a_restarted_agent():
    driver = Driver()
    driver.call(1)
    driver.call(2, "restarted")
    assert driver(Heard(1)) == []
    assert driver.wait(1.5)[-1] == Admit(2)


def test_a_second_agent_of_a_site_whose_first_one_lives_is_refused():
    driver = Driver()
    driver.call(1)
    driver.wait(0.5)
    assert driver.call(2, "another") == []
    [refuse] = driver.wait(1.25, 1)
    assert isinstance(refuse, Refuse)
    assert refuse.stream == 2
    assert "a site has one agent" in refuse.reason
    assert driver.state() is State.HERE


def test_a_coordinator_that_stood_still_does_not_take_the_first_agent_for_dead_when_a_second_one_calls():
    driver = Driver()
    driver.call(1)
    driver.wait(0.5)
    assert driver.call(2, "another") == []
    driver.now_s += 10 * HEARTBEAT_S
    assert driver(Tick()) == []
    [refuse] = driver.wait(1.25, 1)
    assert (type(refuse), refuse.stream) == (Refuse, 2)


def test_of_several_that_wait_for_a_place_the_last_one_gets_it():
    driver = Driver()
    driver.call(1)
    driver.call(2, "second")
    [refuse] = driver.call(3, "third")
    assert (type(refuse), refuse.stream) == (Refuse, 2)
    assert driver(HungUp(1, "its stream broke")) == [Drop(1, "its stream broke"), Admit(3)]


def test_who_hangs_up_while_it_waits_for_a_place_is_forgotten():
    driver = Driver()
    driver.call(1)
    driver.call(2, "second")
    assert driver(HungUp(2, "its stream broke")) == []
    assert driver(HungUp(1, "its stream broke")) == [Drop(1, "its stream broke")]


def test_a_coordinator_that_stood_still_takes_nobody_for_silent():
    driver = Driver()
    driver.call(1)
    driver(Tick())
    driver.now_s += 27
    assert driver(Tick()) == []
    assert driver.state() is State.HERE


@given(
    st.lists(
        st.one_of(
            st.builds(Called, st.just(0), st.sampled_from(["ewr", "jfk"]), st.sampled_from("abc"), st.just("1.0")),
            st.builds(Heard, st.integers(1, 9)),
            st.builds(HungUp, st.integers(1, 9), st.just("it hung up")),
            st.just(Tick()),
        ),
        max_size=60,
    ),
    st.floats(0, 3),
)
def test_whatever_happens_a_site_has_one_stream_and_every_stream_is_admitted_before_it_is_dropped(happened, step_s):
    driver, num_streams, asked, admitted = Driver(), 0, set(), {}
    for event in happened:
        if isinstance(event, Called):
            num_streams += 1
            event = Called(num_streams, event.site, event.instance, event.version)
            asked.add(num_streams)
        if isinstance(event, HungUp):
            asked.discard(event.stream)
        for done in driver(event):
            match done:
                case Admit(stream):
                    assert stream in asked
                    site = next(one.site for one in driver.membership.members.values() if one.stream == stream)
                    assert site not in admitted.values()
                    admitted[stream] = site
                    asked.discard(stream)
                case Refuse(stream):
                    asked.remove(stream)
                case Drop(stream):
                    del admitted[stream]
        driver.now_s += step_s
    here = {one.site for one in driver.membership.members.values() if one.state is not State.GONE}
    assert here == set(admitted.values())
