"""Where a client connects to, and how its channel behaves."""

import json
import re
from pathlib import Path

import pytest

from service.transport import TransportOptions
from vae_client.channel import DEFAULT_TIMEOUT, OPTIONS, SERVICE_CONFIG, address

ROOT = Path(__file__).parents[2]
ARGUMENTS = dict(OPTIONS)
NUMBERS = {name: value for name, value in OPTIONS if name != "grpc.service_config"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:8500", "dns:///localhost:8500"),
        ("vae.models.svc:8500", "dns:///vae.models.svc:8500"),
        ("[::1]:8500", "dns:///[::1]:8500"),
        ("unix:/run/vae.sock", "unix:/run/vae.sock"),
        ("unix:///run/vae.sock", "unix:///run/vae.sock"),
        ("xds:///vae", "xds:///vae"),
        ("ipv4:127.0.0.1:8500,127.0.0.2:8500", "ipv4:127.0.0.1:8500,127.0.0.2:8500"),
    ],
)
def test_a_plain_name_is_resolved_to_all_its_addresses(target: str, expected: str) -> None:
    assert address(target) == expected


def test_calls_are_balanced_and_overload_is_not_repeated_at_once() -> None:
    config = json.loads(str(ARGUMENTS["grpc.service_config"]))

    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    policy = config["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]


def test_the_service_tolerates_the_clients_pings_and_messages() -> None:
    service = dict(TransportOptions("127.0.0.1:0").arguments())

    permitted = service["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert permitted < int(ARGUMENTS["grpc.keepalive_time_ms"])
    for limit in ("grpc.max_receive_message_length", "grpc.max_send_message_length"):
        assert service[limit] == ARGUMENTS[limit]


def test_a_call_outlives_the_search_for_a_silent_replica() -> None:
    found = int(ARGUMENTS["grpc.keepalive_time_ms"]) + int(ARGUMENTS["grpc.keepalive_timeout_ms"])

    assert found < DEFAULT_TIMEOUT * 1000


def test_the_page_for_other_languages_shows_the_same() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    shown = re.search(r"```json\n(.*?)```", text, re.DOTALL)

    assert shown is not None
    assert shown[1] == SERVICE_CONFIG
    options = re.findall(r"^\| `(grpc\.\S+)` \| ([\d,]+) \|", text, re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in options} == NUMBERS
    assert f"{DEFAULT_TIMEOUT:.0f} seconds" in text


def test_the_example_for_node_has_the_same() -> None:
    text = (ROOT / "examples" / "node" / "client.mjs").read_text()

    options = re.findall(r"'(grpc\.\S+)': ([\d_]+)", text)
    core = {"ping_timeout_ms", "max_pings_without_data", "bdp_probe", "lookahead_bytes"}  # no Node
    numbers = {
        name: value
        for name, value in NUMBERS.items()
        if name.removeprefix("grpc.http2.") not in core
    }
    assert {name: int(value) for name, value in options} == numbers
    assert f"seconds = {DEFAULT_TIMEOUT:.0f};" in text
