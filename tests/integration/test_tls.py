"""TLS over a real socket, with both transports."""

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from scripts.launch import ServiceProcess
from tests.service.transport.certificates import issue, make_authority
from vae_client import VaeClient, VaeError

StartService = Callable[..., AbstractContextManager[ServiceProcess]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder)
    for name in ("server", "other", "client"):
        issue(folder, name)
    return folder


@pytest.fixture
def options(certificates: Path, tmp_path: Path) -> list[str]:
    """The options of a service with TLS, whose files may be replaced."""
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"server.{kind}", tmp_path / f"tls.{kind}")
    return ["--tls-certificate", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key")]


def credentials(folder: Path, client: str | None = None) -> grpc.ChannelCredentials:
    pair = [(folder / f"{client}.{kind}").read_bytes() for kind in ("key", "crt")] if client else []
    return grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes(), *pair)


def test_a_client_that_trusts_the_authority_is_served(
    start_service: StartService, options: list[str], certificates: Path
) -> None:
    with (
        start_service(*options, credentials=credentials(certificates)) as service,
        VaeClient(service.target, credentials=credentials(certificates)) as client,
    ):
        assert client.sample("digits", 300, seed=1).observations.shape == (300, 1, 8, 8)
        chunks = client.sample_stream("digits", 5000, seed=1)
        assert sum(len(chunk.observations) for chunk in chunks) == 5000


def test_plain_text_is_not_served(
    start_service: StartService, options: list[str], certificates: Path
) -> None:
    with (
        start_service(*options, credentials=credentials(certificates)) as service,
        VaeClient(service.target, timeout=2.0) as client,
        pytest.raises(VaeError),
    ):
        client.sample("digits", 1)


def test_mutual_tls_serves_those_only_who_show_a_certificate(
    start_service: StartService, options: list[str], certificates: Path
) -> None:
    known = credentials(certificates, "client")
    authority = ["--tls-client-ca", str(certificates / "ca.crt")]
    with start_service(*options, *authority, credentials=known) as service:
        assert service.says("/readyz")  # to those who show nothing
        with VaeClient(service.target, credentials=known) as client:
            assert len(client.sample("digits", 1).observations) == 1
        unknown = credentials(certificates)
        with (
            VaeClient(service.target, credentials=unknown, timeout=2.0) as client,
            pytest.raises(VaeError),
        ):
            client.sample("digits", 1)


def shown(service: ServiceProcess, authority: Path) -> str:
    """The name in the certificate that a new connection is shown."""
    host, port = service.target.split(":")
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate is not None
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"])


@pytest.fixture
def replace(tmp_path: Path) -> Callable[[Path, str], None]:
    def put(folder: Path, name: str) -> None:
        for kind in ("key", "crt"):
            shutil.copy(folder / f"{name}.{kind}", tmp_path / f"tls.{kind}.new")
            (tmp_path / f"tls.{kind}.new").rename(tmp_path / f"tls.{kind}")

    return put


def test_a_renewed_certificate_is_shown_without_a_restart(
    start_service: StartService,
    options: list[str],
    certificates: Path,
    replace: Callable[[Path, str], None],
) -> None:
    authority = certificates / "ca.crt"
    with start_service(*options, credentials=credentials(certificates)) as service:
        assert shown(service, authority) == "server"
        replace(certificates, "other")
        # The files are looked at once a second: connections until then get the old one.
        assert any(shown(service, authority) == "other" for _ in range(2000))


@pytest.mark.parametrize("fault", ["open key", "no key", "wrong key", "half"])
def test_files_that_cannot_be_used_are_an_error_at_start(
    options: list[str], certificates: Path, tmp_path: Path, fault: str
) -> None:
    if fault == "open key":
        (tmp_path / "tls.key").chmod(0o644)
    elif fault == "no key":
        (tmp_path / "tls.key").unlink()
    elif fault == "wrong key":
        shutil.copy(certificates / "other.key", tmp_path / "tls.key")
    else:
        options = options[:2]
    done = subprocess.run(
        [sys.executable, "-m", "service", "--repository", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
