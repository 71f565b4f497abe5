import os
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError

from geotrain.errors import DataError, GeotrainError
from site_agent.compute import Compute
from site_agent.config import SiteConfig
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


NO_ROOM = SimpleNamespace(free=5 << 20)


def test_a_full_disk_of_rays_own_is_said_whatever_ray_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/small")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: NO_ROOM)
    with pytest.raises(GeotrainError, match=r"no disk left: /small has 5 MB left: .+") as lost:
        fetch(fail.remote("die"))
    assert "RAY_TMPDIR" in lost.value.remedy


def test_a_full_disk_of_a_node_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OutOfDiskError("Local disk is full\nmany more lines")

    monkeypatch.setattr(fetching.ray, "put", full)
    with pytest.raises(GeotrainError, match=r"no disk left: Local disk is full\n"):
        put(None)


def test_a_ray_that_can_not_be_started_for_want_of_disk_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("Timed out waiting for file /small/ray/session/gcs_server_port")

    monkeypatch.setattr(ray, "init", init)
    site = SiteConfig(name="ewr", rack=1, data_dir="nowhere")
    with pytest.raises(GeotrainError, match="Ray can't be started: Timed out"):
        Compute(site)
    monkeypatch.setenv("RAY_TMPDIR", "/small")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: NO_ROOM)
    with pytest.raises(GeotrainError, match="Ray can't be started: /small has 5 MB left"):
        Compute(site)


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(KeyError):
        fetch(fail.remote("bug"))
