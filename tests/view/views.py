"""Views of the cluster under test, as a site of its own would have them; and clients that fail by script."""

from collections.abc import Callable, Iterable
from typing import Any

from aerospike import exception

from geotrain.view.config import ViewConfig
from tests.conftest import ClusterUnderTest


def view_config(cluster: ClusterUnderTest, **changes: Any) -> ViewConfig:
    return ViewConfig(
        **{
            "hosts": cluster.hosts,
            "namespace": cluster.namespace,
            "rack": cluster.rack_ids[0] if cluster.rack_ids else 0,
            "require_strong_consistency": cluster.strong_consistency,
            "connect_timeout_s": 20.0,  # these tests share the machine with others
            **changes,
        }
    )


def failure(code: int, *, in_doubt: bool = False) -> exception.AerospikeError:
    """An error as the client raises it."""
    kind = exception.TimeoutError if code == 9 else exception.AerospikeError
    error = kind(code, "injected", "", 0, in_doubt)
    error.code, error.msg, error.in_doubt = code, "injected", in_doubt
    return error


class ScriptedClient:
    """A client whose calls of one method fail as scripted, then work. None in the script is a call that works."""

    def __init__(self, client: Any, method: str, script: Iterable[Callable[..., Any] | Exception | None]) -> None:
        self._client = client
        self._method = method
        self._script = iter(script)
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name != self._method:
            return real

        def scripted(*arguments: Any) -> Any:
            self.num_calls += 1
            step = next(self._script, None)
            if isinstance(step, Exception):
                raise step
            return step(real, *arguments) if step else real(*arguments)

        return scripted
