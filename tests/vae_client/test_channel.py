"""Where a client connects to, and how often it tries."""

import json

import pytest

from vae_client.channel import OPTIONS, address


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:8500", "dns:///localhost:8500"),
        ("vae.models.svc:8500", "dns:///vae.models.svc:8500"),
        ("[::1]:8500", "dns:///[::1]:8500"),
        ("unix:/run/vae.sock", "unix:/run/vae.sock"),
        ("unix:///run/vae.sock", "unix:///run/vae.sock"),
        ("xds:///vae", "xds:///vae"),
    ],
)
def test_a_plain_name_is_resolved_to_all_its_addresses(target: str, expected: str) -> None:
    assert address(target) == expected


def test_calls_are_balanced_and_overload_is_not_repeated() -> None:
    config = json.loads(dict(OPTIONS)["grpc.service_config"])

    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    policy = config["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE"]
