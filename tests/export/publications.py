"""What is published in tests, and what a repository then holds."""

from pathlib import Path

FILES = {"encoder.onnx": b"an encoder", "decoder.onnx": b"a decoder"}


def manifest(version: int) -> bytes:
    return f"version {version}".encode()


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: content of a file, None for a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
