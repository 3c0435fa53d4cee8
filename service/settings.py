"""Command line and `VAE_*` variables; the command line wins. The only reader of the environment."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    transport: Literal["auto", "lean", "public"] = Field(
        "auto", description="lean if it works with the installed grpcio, else grpc's public server"
    )
    threads: int = Field(0, ge=0, description="threads of one session; 0 takes the CPU quota")
    max_queue_delay_ms: float = Field(
        0.0, ge=0, le=1000, description="longest wait for a fuller batch"
    )
    max_queue_items: int = Field(4096, ge=1, description="items that may wait for one graph")
    max_request_items: int = Field(4096, ge=1, description="items in one request")
    drain_delay: float = Field(0.0, ge=0, description="seconds between readiness off and refusing")
    drain_timeout: float = Field(25.0, ge=0, description="seconds for running requests to finish")
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
        option = str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{option}: {first['msg']}") from error


def process_environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ
