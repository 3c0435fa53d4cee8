"""Generates the Python code of protos/ beside the .proto files.

    python scripts/generate_protos.py [--out DIR]

The code is committed, so that nobody needs a compiler to use it; tests/protos checks that it is
current.
"""

import argparse
import sys
from importlib import resources
from pathlib import Path

PROTOS = Path(__file__).resolve().parent.parent / "protos"


def generate(destination: Path) -> None:
    """Writes *_pb2.py, *_pb2_grpc.py and their .pyi files of every .proto file under destination.

    Raises RuntimeError when the compiler refuses a file; it has said why on standard error.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    _run(sources, {"python": destination, "mypy": destination})
    _run(services, {"grpc_python": destination, "mypy_grpc": destination})


def _run(sources: list[str], outputs: dict[str, Path]) -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]  # it carries no types

    scripts = Path(sys.executable).parent  # of this environment, on the PATH or not
    plugins = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={resources.files('grpc_tools') / '_proto'}",
            *(f"--plugin={plugin}={scripts / plugin}" for plugin in plugins),
            *(f"--{language}_out={folder}" for language, folder in outputs.items()),
            *sources,
        ]
    )
    if code:
        raise RuntimeError(f"protoc ended with {code}")


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=PROTOS)
    generate(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
