"""Command line and `VAE_*` variables; the command line wins. The only reader of the environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.batching import MOST_LEVELS
from service.transport.tls import TlsFiles, check_files
from service.version_policy import DESCRIPTION, PATTERN

_PREFIX = "VAE_"
Action = Literal["serve", "check", "print-config"]


class SettingsError(ValueError):
    """A setting is unknown or has a value that it cannot have."""


class Settings(BaseModel):
    """The settings of the service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str = Field(
        min_length=1, description="directory with model versions, or s3://..., gs://..."
    )
    cache: Path | None = Field(None, description="directory for copies of a remote repository")
    version_policy: str = Field("latest 1", pattern=PATTERN, description=DESCRIPTION)
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="none: what is there at the start; poll: what is there; explicit: what "
        "RepositoryModelLoad asks for",
    )
    repository_poll_seconds: float = Field(
        15.0, ge=0.1, le=86400, description="seconds between looks at the repository, under poll"
    )
    load_models: str = Field(
        "", description="names to load at the start, under explicit, as in a,b"
    )
    wanted_file: Path | None = Field(
        None, description="keeps what explicit control was asked for, for the next start"
    )
    listen: str = Field(
        "[::]:8500",
        pattern=r"^.+:\d{1,5}$",
        description="gRPC address, HOST:PORT, as in [::]:8500 for all",
    )
    metrics_port: int = Field(
        9090, ge=0, le=65535, description="port of /metrics, /livez, /readyz; 0 takes a free one"
    )
    metrics_host: str = Field("0.0.0.0", description="their address")  # noqa: S104 - scraped
    reuse_port: bool = Field(False, description="share the port with other processes: true, false")
    processes: int = Field(
        1, ge=1, le=1024, description="processes on one port, with a core or more for each"
    )
    lifeline: int = Field(
        -1, ge=-1, description="a pipe; drains when its other end closes, so with its parent"
    )
    provider: Literal["auto", "cpu", "cuda"] = Field("auto", description="onnxruntime's provider")
    cuda_runs: Literal["captured", "bound", "plain"] = Field(
        "captured",
        description="fastest way to try for batches on CUDA: as CUDA graphs, on buffers that stay, "
        "or neither",
    )
    transport: Literal["auto", "http2", "public"] = Field(
        "auto", description="http2, our own, if it passes its check at start; public, grpc's server"
    )
    tls_certificate: Path | None = Field(None, description="PEM file; with it, only TLS is served")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file; clients must show a certificate that it signed"
    )
    tokens: Path | None = Field(
        None, description="TOML file of hashed bearer tokens; callers must show one"
    )
    jwt_keys: Path | None = Field(
        None, description="JWKS file; callers may show a JWT that one of its keys signed"
    )
    jwt_issuer: str = Field("", description="iss that a JWT must have")
    jwt_audience: str = Field("", description="aud that a JWT must have")
    jwt_rights_claim: str = Field("scope", description="claim of a JWT that names its rights")
    jwt_leeway: float = Field(30.0, ge=0, le=600, description="seconds that clocks may differ")
    trace_endpoint: str = Field(
        "",
        pattern=r"^((https?|grpcs?)://.+)?$",
        description="takes OTLP traces, as http://HOST:4318/v1/traces or grpc://HOST:4317; https "
        "and grpcs are over TLS",
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1, description="share of the traces to record that a caller has not begun"
    )
    slow_request_seconds: float = Field(
        5.0, gt=0, description="unary calls that take longer are logged"
    )
    cpus: int = Field(
        0,
        ge=0,
        description="CPUs to count on, of all processes together; 0 takes the CPU quota",
    )
    threads: int = Field(0, ge=0, description="threads of one session; 0 takes all CPUs")
    precision: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="of the graphs, where a version has it, and float32 else; float16 is for "
        "CUDA and int8 for the CPU",
    )
    max_queue_delay_ms: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="longest wait for a fuller batch, instead of what the version's manifest says",
    )
    max_queue_items: int = Field(4096, ge=1, description="items that may wait for one graph")
    priority_levels: int = Field(
        3, ge=1, le=MOST_LEVELS, description="of requests; 1 is the most urgent and runs first"
    )
    default_priority_level: int = Field(
        0, ge=0, description="of requests that ask for none; 0 takes the middle one"
    )
    max_request_items: int = Field(4096, ge=1, description="items in one request")
    max_message_mib: int = Field(
        64,
        ge=1,
        le=2047,
        description="size of a message, either way; clients have one too",
    )
    max_response_mib: int = Field(
        48, ge=1, le=2047, description="size of an answer's tensors, which bounds its items"
    )
    max_concurrent_streams: int = Field(
        1024, ge=1, le=2**31 - 1, description="calls at once on one connection"
    )
    max_connections: int = Field(
        4096, ge=1, description="connections at once to one process (transport http2)"
    )
    max_held_mib: int = Field(
        512,
        ge=1,
        description="requests in memory that are not answered, answers that are not sent and open "
        "calls, of all clients of one process (transport http2)",
    )
    drain_delay: float = Field(0.0, ge=0, description="seconds between readiness off and refusing")
    drain_timeout: float = Field(25.0, ge=0, description="seconds for running requests to finish")
    max_connection_age: float = Field(
        300.0, gt=0, description="seconds after which clients connect anew and find new replicas"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level"
    )

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        if self.default_priority_level > self.priority_levels:
            raise ValueError("expected --default-priority-level to be one of --priority-levels")
        return self


def read_action(arguments: Sequence[str]) -> Action:
    """What to do with the settings. Exits as argparse does on a bad option."""
    given = _parser().parse_args(arguments)
    return "print-config" if given.print_config else "check" if given.check else "serve"


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of a command line and an environment.

    Raises SettingsError that names the setting and what was expected. Exits as argparse does on a
    bad option.
    """
    values: dict[str, str] = {}
    for variable, value in environment.items():
        if variable.startswith(_PREFIX):
            name = variable.removeprefix(_PREFIX).lower()
            if name not in Settings.model_fields:
                raise SettingsError(f"{variable} is no setting of this service")
            values[name] = value
    given = {
        name: value
        for name, value in vars(_parser().parse_args(arguments)).items()
        if name in Settings.model_fields and value is not None
    }
    try:
        return _consistent(Settings.model_validate(values | given))
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    """What is wrong with the first setting that is."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"]
    name = str(first["loc"][0])
    option = f"--{name}".replace("_", "-")
    described = Settings.model_fields[name].description
    if first["type"] == "missing":
        return f"{option} (or {_PREFIX}{name.upper()}) is needed: {described}"
    if first["type"] == "string_pattern_mismatch":
        return f"{option}: {first['input']!r} is none: {described}"
    return f"{option}: {first['msg']}"


def _consistent(settings: Settings) -> Settings:
    if settings.max_held_mib <= settings.max_message_mib:  # its call takes some more
        raise SettingsError("--max-held-mib: expected more than one message of --max-message-mib")
    if settings.jwt_keys is None and (settings.jwt_issuer or settings.jwt_audience):
        raise SettingsError("--jwt-issuer and --jwt-audience check nothing without --jwt-keys")
    if settings.model_control != "explicit" and (settings.load_models or settings.wanted_file):
        raise SettingsError("--load-models and --wanted-file need --model-control explicit")
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serves the models of a repository over gRPC. Every option can also be given "
        "as a variable, for example VAE_METRICS_PORT.",
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument(
        "--check", action="store_true", help="load everything, print how that went, and end"
    )
    actions.add_argument(
        "--print-config", action="store_true", help="print the settings as JSON, and end"
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() else f" (default {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"{field.description}{default}")
    return parser


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
