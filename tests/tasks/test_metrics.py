import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from geotrain.tasks.metrics import roc_auc


# Few different scores, so that ties within and between the classes come up all the time.
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60))
def test_roc_auc_is_the_one_of_scikit_learn_ties_and_all(rows: list[tuple[bool, int]]) -> None:
    labels, outputs = np.array(rows, dtype=np.float32).T
    assume(0 < labels.sum() < len(labels))
    assert roc_auc(labels, outputs) == pytest.approx(roc_auc_score(labels, outputs))


def test_roc_auc_of_one_class_alone_is_not_a_number() -> None:
    assert math.isnan(roc_auc(np.ones(3, np.float32), np.arange(3, dtype=np.float32)))
