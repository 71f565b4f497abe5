"""A verified connection to the view, and all that can be done with it. Knows nothing of what the records mean."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aerospike

from geotrain.errors import ViewError
from geotrain.view import verify
from geotrain.view.config import ViewConfig
from geotrain.view.keyed import AerospikeError, Key, Records
from geotrain.view.links import LinkRefused, Links, read_password
from geotrain.view.refusals import refusal
from geotrain.view.retry import pauses
from geotrain.wire.codes import ProtocolError

if TYPE_CHECKING:
    import pyarrow as pa

    from geotrain.view.cut import Cut
    from geotrain.view.write import WriteResult

logger = logging.getLogger(__name__)

TIMEOUT = 9
UNKNOWN_HERE = (4, 25)  # to the node, or to its edition
LOGIN_REFUSED = range(60, 90)  # codes of users, passwords and sessions

# How long the client waits for a node that it asks who holds what: it asks one after the other, and until the last has
# answered, or not, it sends commands where they went before. So long a silent node makes partitions unreachable that
# others have taken over. The client's own default.
NODE_DEADLINE_S = 1.0
LOOK_AGAIN_S = 0.2


class View(Records):
    """One connection to the view: its records by key, and sets and many keys as Arrow columns.

    What works on columns is imported when it is called: who only reads records by key need not load Arrow, and a
    compiler.
    """

    def scan(self, set_name: str, columns: Mapping[str, str] | None = None, **options: Any) -> "pa.RecordBatchReader":
        """Reads a set into Arrow columns, from this site's rack: `geotrain.view.scan.Scan`, which has the options."""
        from geotrain.view.scan import Scan

        return Scan(self.config, set_name, columns, **options).reader()

    def changes(
        self, set_name: str, *, since: "Cut", columns: Mapping[str, str] | None = None, **options: Any
    ) -> "pa.RecordBatchReader":
        """Reads the rows written since an earlier cut, but not which were deleted: `geotrain.view.scan.Scan`."""
        from geotrain.view.scan import Scan

        return Scan(self.config, set_name, columns, changed_since=since, **options).reader()

    def lookup(
        self, set_name: str, keys: "pa.Array | Sequence[Key]", columns: Mapping[str, str], *, cut: "Cut | None" = None
    ) -> "pa.Table":
        """Reads records by their keys into Arrow columns: `geotrain.view.lookup.lookup`."""
        from geotrain.view.lookup import lookup

        return lookup(self, set_name, keys, columns, cut=cut)

    def put_many(self, set_name: str, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records whole, by key, over what is there: `geotrain.view.settle.put_many`."""
        from geotrain.view.settle import put_many

        put_many(self, set_name, records)

    def write(
        self,
        table: Any,
        set_name: str,
        key: str,
        *,
        newer_by: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> "WriteResult":
        """Writes the rows of a table as records: `geotrain.view.write.write`."""
        from geotrain.view.write import write

        return write(self, table, set_name, key, newer_by=newer_by, progress=progress)


def connect(config: ViewConfig, *, expected_racks: Sequence[int] = ()) -> View:
    """Connects, and verifies what a site relies on (`verify`), within `connect_timeout_s`.

    expected_racks: the racks of all sites of the job, where the caller knows them.
    Raises ViewError with every reason and its remedy, ConfigError for a file of the configuration that doesn't serve.
    """
    logger.info("the view at %s: %s", _hosts(config), _described(config))
    end_s = time.monotonic() + config.connect_timeout_s
    client = open_client(config)
    try:
        facts = _ask(client, config, end_s)
        # A node that was too slow for the client is found when it looks again, every second.
        while verify.silent(facts) and time.monotonic() + LOOK_AGAIN_S < end_s:
            time.sleep(LOOK_AGAIN_S)
            facts = _ask(client, config, end_s)
        if found := verify.problems(facts, config, expected_racks):
            raise ViewError(
                f"the view at {_hosts(config)} can't be relied on: " + "; ".join(problem.what for problem in found),
                "; ".join(problem.remedy for problem in found),
            )
        return View(client, config, facts)
    except ViewError:
        client.close()
        raise


def _ask(client: Any, config: ViewConfig, end_s: float) -> dict[str, verify.NodeFacts]:
    answers: dict[str, dict[str, str]] = {}
    for question in verify.questions(config.namespace):
        left_ms = max(1, round((end_s - time.monotonic()) * 1000))
        try:
            replies = client.info_all(question, {"timeout": left_ms})
        except AerospikeError as error:
            if error.code in UNKNOWN_HERE:
                continue
            raise refusal(f"asking the nodes of {_hosts(config)} for {question}", error.code, error.msg) from error
        for node, (_, reply) in replies.items():
            answers.setdefault(node, {})[question] = reply.strip()
    return {node: verify.node_facts(of_node, config.namespace) for node, of_node in answers.items()}


def open_client(config: ViewConfig) -> Any:
    """Returns an official client, connected; of what it is connected to, nothing is verified. Raises as `connect`."""
    end_s = time.monotonic() + config.connect_timeout_s
    links = Links(config)  # judges the files of TLS, before the client does with fewer words
    settings = _settings(config)
    for pause_s in pauses(config.connect_timeout_s * 3 / 4):  # the rest is for an explanation
        try:
            return aerospike.client(settings)
        except AerospikeError as error:
            last = error
            if error.code != TIMEOUT:
                break
        time.sleep(pause_s)
    if last.code in LOGIN_REFUSED:
        raise refusal(f"logging in at {_hosts(config)} as {config.user or 'nobody'}", last.code) from last
    _explain(links, config, end_s)
    raise ViewError(
        f"no cluster answers at {_hosts(config)} within {config.connect_timeout_s:g} s ({last.msg})",
        "start it, or set view.hosts to the address of one of its nodes",
    ) from last


def _settings(config: ViewConfig) -> dict[str, Any]:
    """What the client is told."""
    deadline_ms = round(config.deadline_s * 1000)
    read = {
        "total_timeout": deadline_ms,
        # A node that falls silent gets a third of the time, so that another copy can still answer.
        "socket_timeout": deadline_ms // 3,
        "max_retries": 5,
        "sleep_between_retries": 50,
        "replica": aerospike.POLICY_REPLICA_PREFER_RACK,
        "read_mode_sc": aerospike.POLICY_READ_MODE_SC_ALLOW_REPLICA,
    }
    write = {"total_timeout": deadline_ms, "socket_timeout": deadline_ms, "max_retries": 0}
    connect_ms = max(1, round(config.connect_timeout_s * 1000 / len(config.hosts)))
    return {
        "hosts": config.seeds(),
        "validate_keys": True,
        "rack_aware": True,  # does no harm where the edition knows no racks
        "rack_ids": [config.rack],
        "connect_timeout": min(connect_ms, round(NODE_DEADLINE_S * 1000)),
        **_secrets(config),
        "policies": {
            "login_timeout_ms": connect_ms,
            "read": read,
            "batch": read,
            "write": write,
            "batch_parent_write": write,
            # A row that is written is the whole record: bins that it lacks go.
            "batch_write": {"exists": aerospike.POLICY_EXISTS_CREATE_OR_REPLACE},
        },
    }


def _secrets(config: ViewConfig) -> dict[str, Any]:
    """What the client is told of TLS and login."""
    files = {"cafile": config.tls.ca, "certfile": config.tls.cert, "keyfile": config.tls.key}
    tls = {"enable": True} | {name: path for name, path in files.items() if path}
    login = {"user": config.user, "password": read_password(config.password_file)} if config.user else {}
    return login | ({"tls": tls} if config.tls.ca else {})


def _explain(links: Links, config: ViewConfig, end_s: float) -> None:
    """Raises ViewError where a node says to our own link what the client keeps to itself."""
    for address in config.seeds():
        with suppress(OSError, ProtocolError):
            try:
                links.ask(address, ["node"], max(0.001, end_s - time.monotonic()))
            except LinkRefused as refused:
                where = f"{address[0]}:{address[1]}"
                raise ViewError(f"the view at {where} can't be used: {refused}", refused.remedy) from None


def _described(config: ViewConfig) -> str:
    way = "TLS" if config.tls.ca else "plaintext; view.tls.ca secures it"
    return f"{way}, as user {config.user}" if config.user else way


def _hosts(config: ViewConfig) -> str:
    return ", ".join(config.hosts)
