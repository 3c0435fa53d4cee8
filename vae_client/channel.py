"""How a client's channel behaves: balanced, retried where that is harmless, with large messages."""

import json
from typing import Final

DEFAULT_TIMEOUT: Final = 10.0
_MAX_MESSAGE_BYTES: Final = 64 * 2**20

# Calls are repeated where nothing was computed: another replica takes them. RESOURCE_EXHAUSTED is
# not, as repeating makes an overload worse; its error carries the delay that the service asks for.
_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "vae.v1.VaeService"}, {"service": "vae.v1.ModelService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),  # new replicas are found soon
)


def address(target: str) -> str:
    """DNS for a plain "HOST:PORT", so that every address behind a name is found."""
    return target if "://" in target or target.startswith("unix:") else f"dns:///{target}"
