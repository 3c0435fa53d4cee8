"""Command line and `VAE_*` variables; the command line wins. The only reader of the environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.transport.tls import TlsFiles, check_files

_PREFIX = "VAE_"


class SettingsError(ValueError):
    """A setting is unknown or has a value that it cannot have."""


class Settings(BaseModel):
    """The settings of the service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Path = Field(description="directory with model versions")
    listen: str = Field("[::]:8500", pattern=r"^.+:\d{1,5}$", description="gRPC address, HOST:PORT")
    metrics_port: int = Field(
        9090, ge=0, le=65535, description="port of /metrics; 0 takes a free one"
    )
    metrics_host: str = Field("0.0.0.0", description="address of /metrics")  # noqa: S104 - scraped
    reuse_port: bool = Field(False, description="share the port with other processes: true, false")
    processes: int = Field(
        1, ge=1, le=1024, description="processes on one port, with a core or more for each"
    )
    lifeline: int = Field(
        -1, ge=-1, description="a pipe; drains when its other end closes, so with its parent"
    )
    provider: Literal["auto", "cpu", "cuda"] = Field("auto", description="onnxruntime's provider")
    transport: Literal["auto", "http2", "public"] = Field(
        "auto", description="http2, our own, if it passes its check at start; public, grpc's server"
    )
    tls_certificate: Path | None = Field(None, description="PEM file; with it, only TLS is served")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file; clients must show a certificate that it signed"
    )
    threads: int = Field(0, ge=0, description="threads of one session; 0 takes the CPU quota")
    max_queue_delay_ms: float = Field(
        0.0, ge=0, le=1000, description="longest wait for a fuller batch"
    )
    max_queue_items: int = Field(4096, ge=1, description="items that may wait for one graph")
    max_request_items: int = Field(4096, ge=1, description="items in one request")
    drain_delay: float = Field(0.0, ge=0, description="seconds between readiness off and refusing")
    drain_timeout: float = Field(25.0, ge=0, description="seconds for running requests to finish")
    max_connection_age: float = Field(
        300.0, gt=0, description="seconds after which clients connect anew and find new replicas"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level"
    )


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of a command line and an environment.

    Raises SettingsError that names the setting and what was expected. Exits as argparse does on a
    bad option.
    """
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serves the models of a repository over gRPC. Every option can also be given "
        "as a variable, for example VAE_METRICS_PORT.",
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() else f" (default {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"{field.description}{default}")
    values: dict[str, str] = {}
    for variable, value in environment.items():
        if variable.startswith(_PREFIX):
            name = variable.removeprefix(_PREFIX).lower()
            if name not in Settings.model_fields:
                raise SettingsError(f"{variable} is no setting of this service")
            values[name] = value
    given = {
        name: value
        for name, value in vars(parser.parse_args(arguments)).items()
        if value is not None
    }
    try:
        return Settings.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}: ".replace("_", "-") if first["loc"] else ""
        raise SettingsError(f"{option}{first['msg']}") from error


def tls_files(settings: Settings) -> TlsFiles | None:
    """The files of TLS, which can be used; None without. Raises SettingsError."""
    certificate, key, client_ca = (
        settings.tls_certificate,
        settings.tls_key,
        settings.tls_client_ca,
    )
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise SettingsError("TLS needs both --tls-certificate and --tls-key")
    files = TlsFiles(certificate, key, client_ca)
    try:
        check_files(files)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return files


def process_environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ
