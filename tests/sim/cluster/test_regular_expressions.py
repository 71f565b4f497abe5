"""Regular expressions: they match what the C library matches, in bounded time and memory."""

import ctypes
from random import Random

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geotrain.wire.codes import Field, ResultCode
from geotrain.wire.messages import Message
from sim.cluster.expression.expression_calls import _C, regex_of
from sim.cluster.expression.expressions import filter_of
from sim.cluster.values.refused import Refused
from tests.sim.cluster.in_process import Commands

EXTENDED = 1


def matches_plainly(pattern: bytes, flags: int, text: bytes) -> bool | None:
    """What the library says itself; None where it can't compile the pattern."""
    compiled = ctypes.create_string_buffer(256)
    if _C.regcomp(compiled, ctypes.c_char_p(pattern), ctypes.c_int(flags)) != 0:
        return None
    found = _C.regexec(compiled, ctypes.c_char_p(text), 0, None, 0) == 0
    _C.regfree(compiled)
    return bool(found)


parts = st.lists(
    st.sampled_from(["a", "b", "ab", ".", "*", "+", "?", "|", "^", "$", "(", ")", r"\(", r"\)", r"\|", r"\+", "{2}"])
    | st.sampled_from([r"\{2\}", "[ab]", "[^a]", "[)]", "\n", "\\"])
)


@example("^a", 0, "\na")
@settings(max_examples=300, deadline=None)
@given(parts.map("".join), st.integers(0, 15), st.text("ab\nc", max_size=6))
def test_a_pattern_matches_what_the_library_matches(pattern: str, flags: int, text: str) -> None:
    expected = matches_plainly(pattern.encode(), flags, text.encode())
    opened = ("(" if flags & EXTENDED else r"\(") + pattern
    if expected is None or matches_plainly(opened.encode(), flags, b"") is not None:
        with pytest.raises(Refused):
            regex_of(pattern.encode(), flags)
    else:
        assert regex_of(pattern.encode(), flags).matches(text.encode()) == expected


@pytest.mark.parametrize(
    "pattern",
    ["(.*)(.*)(.*)(.*)x", "(a|b)*a(a|b){250}c", "[ab]*a[ab]{40}c", "(a?b?){250}x", "((a*)*)*x"],
)
def test_the_worst_patterns_end(pattern: str) -> None:
    text = bytes(Random(1).choices(b"ab", k=4096))
    assert regex_of(pattern.encode(), EXTENDED).matches(text) is False


@pytest.mark.parametrize("pattern", [r"(a*)\1b", r"\(a\)\\\2", r"a\\\\\9"])
def test_a_group_that_is_to_come_again_is_refused_since_no_bound_is_known_for_it(pattern: str) -> None:
    with pytest.raises(Refused) as caught:
        filter_of(msgpack.packb([7, EXTENDED, pattern, [81, 3, "s"]]))
    assert caught.value.code == ResultCode.PARAMETER


@pytest.mark.parametrize(("num_bytes", "code"), [(4096, ResultCode.OK), (4097, ResultCode.FILTERED_OUT)])
def test_a_text_that_is_too_long_is_not_looked_at(num_bytes: int, code: ResultCode) -> None:
    commands = Commands()
    commands.put({"s": "a" * num_bytes})
    matching = msgpack.packb([7, EXTENDED, "^a*$", [81, 3, "s"]])
    assert commands.do(Message(info1=3, fields={Field.FILTER: matching})).result_code == code
