"""How a client's channel behaves: balanced, retried where that is harmless, with large messages.

`docs/clients.md` says the same for other languages.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from vae.v1 import vae_service_pb2

# A call's, in seconds: longer than it takes to find out that a replica has fallen silent (the two
# numbers of keepalive), so that a call that waits there still has time for another replica.
DEFAULT_TIMEOUT: Final = 20.0
DEFAULT_STREAM_TIMEOUT: Final = 3600.0
_STREAM_WINDOW_BYTES: Final = 256 * 2**10
_MAX_MESSAGE_BYTES: Final = 64 * 2**20  # as the service
_KEEPALIVE_TIME: Final = 10.0
_KEEPALIVE_TIMEOUT: Final = 5.0

# Calls go to every replica in turn, and are repeated where no replica took them or the answer was
# lost: the next one takes them. RESOURCE_EXHAUSTED is not among them, as repeating at once makes an
# overload worse: see `repeats`.
SERVICE_CONFIG: Final = Path(vae_service_pb2.__file__).with_name("service_config.json").read_text()
OPTIONS: Final = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # What is to be repeated must be kept; by default that is no request above 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", round(_KEEPALIVE_TIME * 1000)),
    ("grpc.keepalive_timeout_ms", round(_KEEPALIVE_TIMEOUT * 1000)),
    # Without it grpcio waits for a minute, and without the next it stops to ask after two pings.
    ("grpc.http2.ping_timeout_ms", round(_KEEPALIVE_TIMEOUT * 1000)),
    ("grpc.http2.max_pings_without_data", 0),
    # How far a stream gets ahead of its reader. By default the window grows to megabytes, which the
    # replica computes at once, and behind which other answers of the connection wait.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", _STREAM_WINDOW_BYTES),
    # New replicas are found soon, and those that come back.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
_SCHEMES: Final = ("unix:", "ipv4:", "ipv6:", "vsock:")  # those that are written without "//"


Token = str | Callable[[], str]
"""A bearer token, or what gives one that is good now."""


def credentials_of(token: Token | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token."""
    if token is None:
        return ()
    return (("authorization", f"Bearer {token if isinstance(token, str) else token()}"),)


def address(target: str) -> str:
    """DNS for a plain "HOST:PORT", so that every address behind a name is found."""
    return target if "://" in target or target.startswith(_SCHEMES) else f"dns:///{target}"
