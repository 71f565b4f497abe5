"""gRPC channels and servers as geotrain uses them: limits, keepalive, names in one place. Knows no message."""

import random
import re
from collections.abc import Callable, Iterator

import grpc

from geotrain.rpc.tls import COORDINATOR, Identity

# A site's name is part of paths and of scopes.
SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

# Trailing metadata of what a standby answers: where the leader is dialled.
LEADER_KEY = "leader"

# Less of it costs CPU, for every message at both ends; more of it memory. Less than what `geotrain.rpc.memory` has used
# again.
CHUNK_BYTES = 1 << 20

_LIMITS = [
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.max_receive_message_length", 64 << 20),
]
# A wide-area path that drops idle flows is noticed within 40 s, also while no call is open.
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
# Who dials decides how long to wait between tries; gRPC's own pause must not exceed it.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 250), ("grpc.max_reconnect_backoff_ms", 1_000)]

FIRST_RETRY_S = 0.25
# A round waits for its sites after every change of leader.
LAST_RETRY_S = 2.0


def retry_delays_s(draw: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before each further try: doubling, bounded, with full jitter."""
    bound = FIRST_RETRY_S
    while True:
        yield draw() * bound
        bound = min(2 * bound, LAST_RETRY_S)


def open_channel(address: str, identity: Identity | None = None) -> grpc.aio.Channel:
    """A channel to a coordinator at `host:port`; identity: for mutual TLS, none: plaintext.

    It connects when first used, and does not queue calls while it can't.
    """
    # A private pool: two agents in one process must not share one connection.
    options: list[tuple[str, int | str]] = [*_LIMITS, *_KEEPALIVE, *_RECONNECT, ("grpc.use_local_subchannel_pool", 1)]
    if identity is None:
        return grpc.aio.insecure_channel(address, options=options)
    options.append(("grpc.ssl_target_name_override", COORDINATOR))  # whoever dials knows a role, not a host
    return grpc.aio.secure_channel(address, identity.to_dial(), options=options)


def new_server() -> grpc.aio.Server:
    """A server that tolerates the keepalive above and refuses to share its port with another process."""
    return grpc.aio.server(
        options=[
            *_LIMITS,
            *_KEEPALIVE,
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
    )
