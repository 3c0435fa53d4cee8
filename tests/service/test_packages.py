"""What the service and its clients bring along: the serving image holds no torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import service

DISTRIBUTION = "vae-serving"
MODULES = sorted(
    f"service.{path.stem}" for path in Path(service.__file__ or "").parent.glob("*.py")
)
TRAINING = {"torch", "onnx", "onnxscript", "sklearn", "matplotlib", "training", "export"}


def loaded_by(*modules: str) -> set[str]:
    """What is in sys.modules of a fresh Python that has imported the modules.

    By top-level name; google.protobuf and others of google by their second one too.
    """
    script = f"""
import importlib, json, sys
before = set(sys.modules)
for module in {modules!r}:
    importlib.import_module(module)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    names = [name.split(".") for name in json.loads(done.stdout)]
    google = {".".join(name[:2]) for name in names if name[0] == "google" and name[1:]}
    return {name[0] for name in names} | google


def test_every_module_of_the_service_is_looked_at() -> None:
    assert {"service.__main__", "service.batching", "service.server"} <= set(MODULES)


def test_the_service_loads_nothing_of_training() -> None:
    loaded = loaded_by(*MODULES)
    assert "onnxruntime" in loaded
    assert not loaded & (TRAINING | {"vae_client"})


def test_the_client_loads_nothing_but_grpc_protobuf_numpy_and_the_messages() -> None:
    loaded = loaded_by("vae_client")
    # grpc needs typing_extensions, and imports packages of its own that it finds beside it.
    with_grpc = {"typing_extensions", "grpc_health", "grpc_reflection", "grpc_tools"}
    installed = set(metadata.packages_distributions()) - {"google"} - with_grpc
    assert loaded & installed == {"grpc", "numpy"}
    google = {name for name in loaded if name.startswith("google.")}
    assert google - {"google._upb"} == {"google.protobuf", "google.rpc"}  # _upb is protobuf's
    assert not loaded & (TRAINING | {"service"})


def requirements(distribution: str, extras: set[str]) -> Iterator[Requirement]:
    """What an installed distribution needs with some extras."""
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in extras | {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def reached(extra: str) -> set[str]:
    """Names of all distributions that an extra of ours pulls in, step by step."""
    names: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(DISTRIBUTION, frozenset({extra}))]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for requirement in requirements(node[0], set(node[1])):
            name = canonicalize_name(requirement.name)
            names.add(name)
            waiting.append((name, frozenset(requirement.extras)))
    return names - {DISTRIBUTION}


def test_the_service_extra_pulls_in_what_the_service_imports() -> None:
    expected = {"onnxruntime", "grpcio", "protobuf", "numpy", "prometheus-client", "structlog"}
    assert expected <= reached("service")


@pytest.mark.parametrize("name", ["torch", "onnx", "onnxscript", "scikit-learn", "matplotlib"])
def test_the_service_extra_never_reaches(name: str) -> None:
    assert name not in reached("service")


@pytest.mark.parametrize("name", ["torch", "onnx", "scikit-learn", "matplotlib"])
def test_the_training_and_export_extras_do_reach(name: str) -> None:
    assert name in reached("export")  # so the walk finds what is there


def test_the_client_needs_grpc_protobuf_and_numpy_only() -> None:
    direct = {requirement.name for requirement in requirements(DISTRIBUTION, set())}
    assert direct == {"googleapis-common-protos", "grpcio", "numpy", "protobuf"}


def test_both_service_extras_pin_the_same_minor_version_of_onnxruntime() -> None:
    [cpu] = (r for r in requirements(DISTRIBUTION, {"service"}) if r.name == "onnxruntime")
    [gpu] = (r for r in requirements(DISTRIBUTION, {"service-gpu"}) if r.name == "onnxruntime-gpu")
    assert str(cpu.specifier) == str(gpu.specifier)
    assert str(cpu.specifier).startswith("~=")
    assert str(cpu.specifier).count(".") == 2  # a patch may change, a minor version may not
