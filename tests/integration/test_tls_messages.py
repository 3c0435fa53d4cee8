"""Large and compressed messages over TLS, and a renewal that is no certificate, by both transports.

A message is made large by a field that no service knows, before those that it reads: its answer is
right only if all of it has arrived.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from vae.v1.vae_service_pb2 import SampleRequest, SampleResponse

from scripts.launch import ServiceProcess
from tests.integration.test_tls import shown
from tests.service.transport.certificates import issue, make_authority

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
SIZE = 60 * 2**20
UNKNOWN_FIELD = b"\xfa\x7f"  # number 2047, bytes
UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority and a service's files, tls.crt and tls.key, which may be replaced."""
    make_authority(tmp_path)
    issue(tmp_path, "server")
    for kind in ("crt", "key"):
        shutil.copy(tmp_path / f"server.{kind}", tmp_path / f"tls.{kind}")
    return tmp_path


@pytest.fixture
def trusted(folder: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes())


@pytest.fixture
def secured(
    start_service: StartService, folder: Path, trusted: grpc.ChannelCredentials
) -> Iterator[ServiceProcess]:
    files = ("--tls-certificate", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"))
    with start_service(*files, credentials=trusted) as service:
        yield service


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes((value,))


def draw(channel: Any, padding: int = 0, **options: Any) -> np.ndarray[Any, Any]:
    """20 samples of seed 1, asked for by a message that is so much larger."""
    request = SampleRequest(model="models/digits", sample_count=20, seed=1).SerializeToString()
    unknown = UNKNOWN_FIELD + varint(padding) + bytes(padding)
    call = channel.unary_unary("/vae.v1.VaeService/Sample")
    answer = SampleResponse.FromString(call(unknown + request, timeout=30, **options))
    return np.frombuffer(answer.observations.data, np.float32)


def test_a_message_of_60_mib_is_answered_over_tls(
    secured: ServiceProcess, trusted: grpc.ChannelCredentials
) -> None:
    with grpc.secure_channel(secured.target, trusted, UNLIMITED) as channel:
        expected = draw(channel)
        assert expected.size == 20 * 64
        np.testing.assert_array_equal(draw(channel, SIZE), expected)


@pytest.mark.parametrize("name", ["Gzip", "Deflate"])
def test_compressed_messages_are_answered_over_tls(
    secured: ServiceProcess, trusted: grpc.ChannelCredentials, name: str
) -> None:
    with grpc.secure_channel(secured.target, trusted, UNLIMITED) as channel:
        expected = draw(channel)
        compressed = draw(channel, 100_000, compression=getattr(grpc.Compression, name))
        np.testing.assert_array_equal(compressed, expected)


def test_what_is_no_certificate_leaves_the_old_one_in_use_once_it_is_looked_at(
    secured: ServiceProcess, folder: Path
) -> None:
    (folder / "tls.crt").write_text("no certificate")
    looked = time.monotonic() + 1.5  # the files are looked at once a second
    while time.monotonic() < looked:
        assert shown(secured, folder / "ca.crt") == "server"
