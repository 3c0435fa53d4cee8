"""Installs the peers, once, into folders of their own: their packages clash with the project's.

- Triton: nvidia-pytriton carries the real tritonserver with its Python backend. Its own Python
  wrapper is not used, nor are its dependencies installed.
- What Triton's model runs on: the project's version of onnxruntime. numpy stays below 2, because
  the backend is built against numpy 1: with numpy 2 it answers OK without the tensor's bytes.
- perf_analyzer: tritonclient carries it. The two libraries that it misses on a plain system, libb64
  and CUDA's runtime, are among those of nvidia-pytriton.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.errors import BenchmarkError

TRITON = "nvidia-pytriton==0.7.0"
PERF_ANALYZER = "tritonclient==2.41.0"
BACKEND_NUMPY = "numpy==1.26.4"
_FOLDER = Path(__file__).parent / ".peers"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Peers:
    """Where the peers are."""

    folder: Path

    @property
    def tritonserver(self) -> Path:
        """Triton's executable."""
        return self.folder / "triton" / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Triton's backend directory."""
        return self.folder / "backends"

    @property
    def site_packages(self) -> Path:
        """What Triton's model imports."""
        return self.folder / "model"

    @property
    def triton_libraries(self) -> str:
        """LD_LIBRARY_PATH of Triton. The backend's interpreter is the one that runs the service,
        where that one has a shared library."""
        own = sysconfig.get_config_var("LIBDIR")
        return f"{self.folder / 'triton' / 'nvidia_pytriton.libs'}:{own}"

    @property
    def perf_analyzer(self) -> Path:
        """perf_analyzer's executable."""
        return self.folder / "client" / "bin" / "perf_analyzer"

    @property
    def perf_analyzer_libraries(self) -> str:
        """LD_LIBRARY_PATH of perf_analyzer."""
        return str(self.folder / "libraries")


def specification() -> dict[str, str]:
    """What is installed, by folder; another specification is installed anew."""
    runtime = f"onnxruntime=={version('onnxruntime')}"
    return {
        "triton": TRITON,
        "client": PERF_ANALYZER,
        "model": f"{BACKEND_NUMPY} {runtime}",
        "python": _PYTHON,
    }


def install_peers(folder: Path = _FOLDER) -> Peers:
    """Install what is missing. Raises BenchmarkError that says what was tried."""
    peers = Peers(folder)
    marker = folder / "installed.json"
    wanted = specification()
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return peers
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise BenchmarkError(
            "the peers run on x86_64 Linux only: nvidia-pytriton has no other wheel"
        )
    shutil.rmtree(folder, ignore_errors=True)
    _pip(folder / "triton", "--no-deps", TRITON)
    _pip(folder / "client", "--no-deps", PERF_ANALYZER)
    _pip(folder / "model", *wanted["model"].split())
    peers.tritonserver.chmod(0o755)
    peers.perf_analyzer.chmod(0o755)
    _make_backend(peers)
    _link_libraries(peers)
    marker.write_text(json.dumps(wanted))
    return peers


def _make_backend(peers: Peers) -> None:
    """One folder with the backend and the stub of this Python version, as Triton looks for them."""
    server = peers.tritonserver.parents[1]
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise BenchmarkError(f"{TRITON} has no Python backend for Python {_PYTHON}")
    folder = peers.backends / "python"
    shutil.copytree(server / "backends" / "python", folder)
    shutil.copy(stub, folder)
    (folder / stub.name).chmod(0o755)


def _link_libraries(peers: Peers) -> None:
    """Triton's wheel holds them under names of its own: libb64-98cb6333.so.0d for libb64.so.0d."""
    folder = Path(peers.perf_analyzer_libraries)
    folder.mkdir()
    for name, pattern in (("libb64.so.0d", "libb64-*.so.0d"), ("libcudart.so.12", "libcudart-*")):
        found = list((peers.folder / "triton" / "nvidia_pytriton.libs").glob(pattern))
        if not found:
            raise BenchmarkError(
                f"{TRITON} holds no {pattern}, which perf_analyzer needs as {name}"
            )
        (folder / name).symlink_to(os.path.relpath(found[0], folder))  # the folder may move


def _pip(target: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(target), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        reason = (result.stderr.strip() or "no reason").splitlines()[-1]
        tried = " ".join(arguments)
        raise BenchmarkError(
            f"cannot install a peer: tried `pip install {tried}`; pip says: {reason}"
        )
