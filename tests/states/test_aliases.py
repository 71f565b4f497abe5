import pytest

from geotrain.errors import ConfigError
from geotrain.states.aliases import pin, promote, read_head, rollback, unpin, version_of
from geotrain.states.heads import MAX_HISTORY, move_alias
from geotrain.states.lookup import ModelLookup
from geotrain.states.manifest import ALIASES, UnknownState
from geotrain.view.refusals import InDoubt
from tests.states.test_publish import put_state, value_of

SCOPE = "global"


@pytest.fixture
def three(view, model):
    """Three versions, the last of them in production."""
    for value in (1, 2, 3):
        put_state(view, model, value)


@pytest.fixture
def lookup(view, model):
    return ModelLookup(view, model)


def test_a_candidate_is_promoted_and_it_is_told_who_did_it_and_why(view, model, lookup):
    put_state(view, model, 1)
    put_state(view, model, 2, alias="candidate")
    move = promote(view, model, SCOPE, 2, who="ann", why="better at jfk")
    assert (move.before, move.now, value_of(lookup)) == (1, 2, 2)
    note = read_head(view, model, SCOPE).history[-1]
    assert note.pop("at_s") > 1.6e9
    assert note == {"alias": "production", "from": 1, "to": 2, "who": "ann", "why": "better at jfk"}


def test_a_rollback_goes_to_where_the_alias_pointed_before(view, model, lookup, three):
    assert rollback(view, model, SCOPE).now == 2
    assert value_of(lookup) == 2
    assert rollback(view, model, SCOPE).now == 1
    with pytest.raises(UnknownState, match="before 1 is not known"):
        rollback(view, model, SCOPE)


def test_a_rollback_skips_versions_that_the_alias_never_pointed_to(view, model, lookup):
    put_state(view, model, 1)
    put_state(view, model, 2, alias="candidate")
    put_state(view, model, 3)
    assert rollback(view, model, SCOPE).now == 1


def test_a_publisher_that_says_again_what_it_published_does_not_undo_a_rollback(view, model, lookup, three):
    rollback(view, model, SCOPE, 1)
    for version in (2, 3):
        move_alias(view, model, SCOPE, version, epoch=5)
    assert value_of(lookup) == 1
    put_state(view, model, 4)
    assert value_of(lookup) == 4


def test_what_was_rolled_back_from_can_be_promoted_again(view, model, lookup, three):
    rollback(view, model, SCOPE, 1)
    promote(view, model, SCOPE, 3)
    assert value_of(lookup) == 3


def test_each_way_takes_only_what_goes_its_way(view, model, three):
    with pytest.raises(ConfigError, match="points to 3: 2 is no way forward"):
        promote(view, model, SCOPE, 2)
    rollback(view, model, SCOPE, 1)
    with pytest.raises(ConfigError, match="points to 1: 2 is no way back"):
        rollback(view, model, SCOPE, 2)


def test_an_alias_that_there_is_not_is_not_rolled_back(view, model, three):
    for version in (None, 1):
        with pytest.raises(UnknownState, match=f"{model}/global has no alias canary to roll back") as refused:
            rollback(view, model, SCOPE, version, alias="canary")
        assert refused.value.remedy == "aliases are: production"


def test_promoting_what_is_promoted_changes_nothing(view, model, three):
    before = view.get(ALIASES, f"{model}/{SCOPE}")
    promote(view, model, SCOPE, 3)
    assert view.get(ALIASES, f"{model}/{SCOPE}") == before


@pytest.mark.parametrize("applied", [True, False])
def test_a_rollback_in_doubt_goes_back_once(view, model, lookup, three, monkeypatch, applied):
    put, doubted = view.put, []

    def doubtful(*arguments, **options):
        if not doubted:
            doubted.append(True)
            if applied:
                put(*arguments, **options)
            raise InDoubt("no answer")
        put(*arguments, **options)

    monkeypatch.setattr(view, "put", doubtful)
    move = rollback(view, model, SCOPE)
    assert (move.before, move.now, value_of(lookup)) == (3, 2, 2)


def test_no_alias_can_be_pointed_to_what_there_is_not(view, model, three):
    for version in (0, 4):
        with pytest.raises(UnknownState, match=f"there is no model state {model}/global@{version}"):
            promote(view, model, SCOPE, version)
    with pytest.raises(UnknownState, match="no model state"):
        promote(view, model, "site/ewr", 1)
    with pytest.raises(UnknownState, match="has no state in scope site/ewr"):
        read_head(view, model, "site/ewr")
    with pytest.raises(ConfigError, match="alias 'Pro duction'"):
        promote(view, model, SCOPE, 3, alias="Pro duction")


def test_a_pin_is_noted_and_let_go_of(view, model, three):
    pin(view, model, SCOPE, 1, who="ann", why="audit")
    pin(view, model, SCOPE, 1, who="bob", why="me too")
    pins = read_head(view, model, SCOPE).pins
    assert list(pins) == [1]
    assert (pins[1]["who"], pins[1]["why"]) == ("ann", "audit")
    unpin(view, model, SCOPE, 1)
    assert read_head(view, model, SCOPE).pins == {}
    with pytest.raises(UnknownState, match="is not pinned"):
        unpin(view, model, SCOPE, 1)
    with pytest.raises(UnknownState, match="no model state"):
        pin(view, model, SCOPE, 9)


def test_the_history_is_bounded(view, model, three):
    for _ in range(MAX_HISTORY):
        rollback(view, model, SCOPE, 1)
        promote(view, model, SCOPE, 3)
    assert len(read_head(view, model, SCOPE).history) == MAX_HISTORY


def test_a_version_is_named_by_number_or_alias(view, model, three):
    head = read_head(view, model, SCOPE)
    assert (version_of(head, "2"), version_of(head, "production")) == (2, 3)
    for wanted in ("candidate", "4", "-1"):
        with pytest.raises(UnknownState, match=f"no version or alias '{wanted}'") as refused:
            version_of(head, wanted)
        assert "production, 1, 2, 3" in refused.value.remedy
