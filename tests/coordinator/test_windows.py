from coordinator.windows import MAX_UNDER_WAY_BYTES, MAX_WINDOW_BYTES, MIN_WINDOW_BYTES, window_bytes


def test_what_all_sites_may_have_under_way_does_not_grow_with_their_number():
    assert window_bytes(1) == MAX_WINDOW_BYTES
    assert [n * window_bytes(n) for n in (4, 32, 64)] == [MAX_UNDER_WAY_BYTES] * 3
    assert window_bytes(10_000) == MIN_WINDOW_BYTES
