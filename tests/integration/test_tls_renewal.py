"""A renewal that is seen half done: the old certificate stays until the files fit together."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc

from scripts.launch import ServiceProcess
from tests.integration.test_tls import shown
from tests.service.transport.certificates import issue, make_authority

StartService = Callable[..., AbstractContextManager[ServiceProcess]]


def test_a_certificate_without_its_key_leaves_the_old_one_in_use(
    start_service: StartService, tmp_path: Path
) -> None:
    make_authority(tmp_path)
    for name in ("server", "other"):
        issue(tmp_path, name)
    authority = tmp_path / "ca.crt"
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(tmp_path / "server.crt", certificate)
    shutil.copy(tmp_path / "server.key", key)
    trusted = grpc.ssl_channel_credentials(authority.read_bytes())
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with start_service(*options, credentials=trusted) as service:
        shutil.copy(tmp_path / "other.crt", certificate)
        looked = time.monotonic() + 1.5  # the files are looked at once a second
        while time.monotonic() < looked:
            assert shown(service, authority) == "server"
        shutil.copy(tmp_path / "other.key", key)
        until = time.monotonic() + 20
        while shown(service, authority) != "other":
            assert time.monotonic() < until
