import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotrain.states.gate import Gate, decide

EQUAL = {"ewr": 1.0, "jfk": 1.0}
VALUES = st.floats(0, 1)


def measured(ewr, jfk, metric="auc"):
    return {"ewr": {metric: ewr}, "jfk": {metric: jfk}}


def test_the_first_state_goes_to_production():
    assert decide(Gate(metric="loss"), measured(0.5, 0.5), None, EQUAL).alias == "production"


@pytest.mark.parametrize("current", [{}, {"ewr": {}}, measured(0.9, 0.9, "auc"), measured(math.nan, math.inf, "loss")])
def test_a_state_that_is_measured_takes_the_place_of_one_that_is_not(current):
    decision = decide(Gate(metric="loss"), measured(0.5, math.nan, "loss"), current, EQUAL)
    assert decision.alias == "production"
    assert decision.reason == "no site has measured loss of production: there is nothing to compare"
    assert decide(Gate(metric="loss"), {}, current, EQUAL).alias == "candidate"


@pytest.mark.parametrize(("gain", "alias"), [(0.02, "production"), (0.005, "candidate")])
def test_the_mean_must_gain_enough(gain, alias):
    gate = Gate(metric="auc", min_gain=0.01)
    decision = decide(gate, measured(0.7 + gain, 0.7 + gain), measured(0.7, 0.7), EQUAL)
    assert decision.alias == alias
    assert f"{gain:+.4g} better in the mean of 2 sites" in decision.reason


def test_no_single_site_may_lose_more_than_is_allowed_though_the_mean_gains():
    gate = Gate(metric="auc", max_drop=0.01)
    decision = decide(gate, measured(0.9, 0.68), measured(0.7, 0.7), EQUAL)
    assert decision.alias == "candidate"
    assert "-0.02 at jfk" in decision.reason
    assert decide(gate, measured(0.9, 0.695), measured(0.7, 0.7), EQUAL).alias == "production"


def test_sites_count_by_their_weights():
    new, current = measured(0.8, 0.6), measured(0.7, 0.65)
    assert decide(Gate(metric="auc"), new, current, {"ewr": 1.0, "jfk": 3.0}).alias == "candidate"
    assert decide(Gate(metric="auc"), new, current, {"ewr": 3.0, "jfk": 1.0}).alias == "production"


def test_a_lower_loss_is_better():
    assert (
        decide(Gate(metric="loss"), measured(0.3, 0.3, "loss"), measured(0.4, 0.4, "loss"), EQUAL).alias == "production"
    )
    assert (
        decide(Gate(metric="loss"), measured(0.4, 0.4, "loss"), measured(0.3, 0.3, "loss"), EQUAL).alias == "candidate"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_or_not_measured_by_both_counts_for_nothing(value):
    gate = Gate(metric="auc")
    assert decide(gate, measured(value, 0.8), measured(0.7, 0.7), EQUAL).alias == "production"
    assert decide(gate, {"ewr": {"auc": value}}, measured(0.7, 0.7), EQUAL).alias == "candidate"
    assert "no site has measured auc" in decide(gate, {"ewr": {}}, measured(0.7, 0.7), EQUAL).reason


@given(st.tuples(VALUES, VALUES), st.tuples(VALUES, VALUES), st.floats(-0.1, 0.1), st.floats(0, 0.2))
def test_a_stricter_gate_never_lets_more_through(new, current, min_gain, max_drop):
    def alias(**limits):
        return decide(Gate(metric="auc", **limits), measured(*new), measured(*current), EQUAL).alias

    if alias(min_gain=min_gain) == "candidate" or alias(max_drop=max_drop, min_gain=-1.0) == "candidate":
        assert alias(min_gain=min_gain, max_drop=max_drop) == "candidate"


@pytest.mark.parametrize(("field", "value"), [("min_gain", math.nan), ("max_drop", -0.1), ("max_drop", math.nan)])
def test_a_gate_that_makes_no_sense_is_refused_by_the_fields_name(field, value):
    with pytest.raises(ValueError, match=rf"gate\.{field}"):
        Gate(metric="auc", **{field: value})


@pytest.mark.parametrize("limit", [{"min_gain": 0.01}, {"max_drop": 0.0}])
def test_a_limit_without_a_metric_is_refused_with_what_is_missing(limit):
    with pytest.raises(ValueError, match=r"gate\.metric must name the metric"):
        Gate(**limit)
