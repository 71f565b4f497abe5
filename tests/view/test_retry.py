from geotrain.view import retry


def test_pauses_grow_with_jitter_and_end_with_the_budget(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(retry.time, "monotonic", lambda: now_s)
    taken = []
    for pause_s in retry.pauses(10):
        taken.append(pause_s)
        now_s += pause_s
    assert now_s == 10
    longest = [min(retry.FIRST_PAUSE_S * 2**i, retry.LONGEST_PAUSE_S) for i in range(len(taken))]
    assert all(most / 2 <= pause_s <= most for pause_s, most in zip(taken[:-1], longest, strict=False))


def test_a_budget_that_is_spent_still_allows_the_first_attempt():
    assert len(list(zip(retry.pauses(1e-9), range(3), strict=False))) <= 1
