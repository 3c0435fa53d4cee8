"""The files of TLS, and what becomes of them."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With `client_ca`, clients must show a certificate that it signed (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """All files there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)

    def context(self) -> ssl.SSLContext:
        """For gRPC's side of a server. Raises OSError (of which SSLError is one) or ValueError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(self.certificate, self.key, password=_no_password)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def check_files(files: TlsFiles) -> None:
    """Raises ValueError if the files cannot be used, or if everybody can read the key."""
    for path in files.paths():
        if not path.is_file():
            raise ValueError(f"{path} is no file")
    if files.key.stat().st_mode & 0o004:
        raise ValueError(f"everybody can read the key {files.key}; chmod o-r it")
    try:
        files.context()
    except OSError as error:
        raise ValueError(f"no certificate and key that fit each other in PEM: {error}") from error


def _no_password() -> str:
    raise ValueError("the key needs a password; give one without")
