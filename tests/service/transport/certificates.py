"""Certificates for a test, made by the openssl command."""

import subprocess
from pathlib import Path

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_authority(folder: Path) -> None:
    """ca.key and ca.crt."""
    files = ("-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt"))
    _openssl("req", "-x509", *_EC, "-days", "2", "-subj", "/CN=test", *files)


def issue(folder: Path, name: str) -> None:
    """NAME.key and NAME.crt for 127.0.0.1, which the folder's authority has signed."""
    key, request, signed = (str(folder / f"{name}.{kind}") for kind in ("key", "csr", "crt"))
    _openssl("req", *_EC, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1")
    authority = ("-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"))
    _openssl("x509", "-req", "-in", request, *authority, "-CAcreateserial", "-days", "2",
             "-extfile", str(names), "-out", signed)  # fmt: skip
    (folder / f"{name}.key").chmod(0o600)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
