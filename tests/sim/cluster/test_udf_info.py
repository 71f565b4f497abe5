"""Modules of users' functions are registered, listed, told and removed; the answers are those of a real server."""

import json
from base64 import b64encode
from hashlib import sha1

import pytest

from sim.cluster.answers.info import answer
from sim.cluster.answers.udf_info import MAX_MODULE_BYTES
from tests.sim.cluster.in_process import Commands

CONTENT = b64encode(b"\xff\xff return 1 >>>???").decode()  # with a slash in it


@pytest.fixture
def commands() -> Commands:
    return Commands()


def ask(commands: Commands, request: str) -> str:
    return answer(commands.cluster, commands.cluster.nodes[0], request)


def put(commands: Commands, name: str, content: str = CONTENT) -> str:
    return ask(commands, f"udf-put:filename={name};content={content};content-len={len(content)};udf-type=LUA;")


def test_a_registered_module_is_known_to_all_nodes_until_it_is_removed(commands: Commands) -> None:
    assert "/" in CONTENT
    assert ask(commands, "udf-list") == ""
    assert put(commands, "b.lua") == put(commands, "a.lua") == "ok"
    kept = json.dumps({"content64": CONTENT, "type": "LUA", "name": "a.lua"}).encode()
    for node in commands.cluster.nodes:
        first, second, end = answer(commands.cluster, node, "udf-list").split(";")
        assert (first, end) == (f"filename=a.lua,hash={sha1(kept).hexdigest()},type=LUA", "")
        assert second.startswith("filename=b.lua,hash=")
        assert answer(commands.cluster, node, "udf-get:filename=a.lua") == f"type=LUA;content={CONTENT};"
    assert ask(commands, "udf-remove:filename=a.lua") == "ok"
    assert ask(commands, "udf-get:filename=a.lua") == "error=not_found"
    assert ask(commands, "udf-remove:filename=a.lua") == "ok"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("udf-put:filename=../a.lua;content=YQ==;content-len=4", "error=invalid_filename"),
        ("udf-put:filename=a;content=YQ==;content-len=4", "error=invalid_filename"),
        ("udf-put:filename=a.;content=YQ==;content-len=4", "error=invalid_filename"),
        ("udf-put:content=YQ==;content-len=4", "error=invalid_filename"),
        ("udf-put:filename=a.py;content=YQ==;content-len=4;udf-type=PYTHON", "error=invalid_udf_type"),
        ("udf-put:filename=a.lua;content=YQ==;content-len=5", "error=invalid_content_len"),
        ("udf-put:filename=a.lua;content=YQ=;content-len=3", "error=invalid_base64_content"),
        ("udf-get:filename=", "error=invalid_filename"),
        ("udf-remove:filename=.lua", "error=invalid_filename"),
    ],
)
def test_what_is_no_module_is_refused_in_the_words_of_a_server(
    commands: Commands, request_: str, expected: str
) -> None:
    assert ask(commands, request_) == expected
    assert ask(commands, "udf-list") == ""


def test_modules_are_bounded(commands: Commands) -> None:
    too_large = b64encode(bytes(MAX_MODULE_BYTES + 1)).decode()
    assert put(commands, "a.lua", too_large) == "error=invalid_udf_content_len,>1M"
    answers = [put(commands, f"{number}.lua") for number in range(300)]
    assert answers == ["ok"] * 256 + ["error=timeout"] * 44
    assert put(commands, "0.lua") == "ok"
