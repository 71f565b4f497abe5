import os
from collections.abc import Iterator

import pytest
import ray
from ray.exceptions import ObjectStoreFullError, OutOfMemoryError

from geotrain.errors import DataError, GeotrainError
from site_agent.join import fetch as fetching
from site_agent.join.fetch import fetch, put


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    ray.init(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(max_retries=0)
def fail(how: str) -> None:
    if how == "die":
        os._exit(1)
    raise {"data": DataError("a row is wrong", "mend it"), "bug": KeyError("x")}[how]


def test_an_error_that_a_user_can_mend_comes_back_as_itself() -> None:
    with pytest.raises(DataError, match="a row is wrong"):
        fetch(fail.remote("data"))


def test_a_worker_that_died_is_said_with_what_to_do() -> None:
    with pytest.raises(GeotrainError, match=r"Ray cluster lost a worker or a node: .+") as lost:
        fetch(fail.remote("die"))
    assert lost.value.remedy


@pytest.mark.parametrize("kind", [OutOfMemoryError, ObjectStoreFullError])
def test_a_lack_of_memory_is_said_with_the_field_that_gives_more(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise kind("worker killed due to memory pressure\nmany more lines")

    for name, call in (("get", fetch), ("put", put)):
        monkeypatch.setattr(fetching.ray, name, fail)
        with pytest.raises(GeotrainError, match=r"out of memory: .*memory pressure\n") as full:
            call(None)
        assert "site.ray.object_store_bytes" in full.value.remedy


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(KeyError):
        fetch(fail.remote("bug"))
