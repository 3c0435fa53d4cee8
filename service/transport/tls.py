"""The service's certificate, read again whenever its files change: no restart for a renewal."""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.logs import Logger

_LOOK: Final = 1.0  # seconds between looks at the files
Stamp = tuple[tuple[int, int, int], ...]


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

    def stamp(self) -> Stamp:
        """Changes when a file does: Kubernetes replaces a link, others write in place."""
        stats = [path.stat() for path in self.paths()]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


class Certificates:
    """The context for new connections. The old one stays while the files do not fit together."""

    def __init__(self, files: TlsFiles, log: Logger) -> None:
        self._files = files
        self._log = log
        self._stamp = files.stamp()
        self._context = files.context()
        self._looked = time.monotonic()

    def context(self, now: float) -> ssl.SSLContext:
        """The newest that could be read; now: seconds of time.monotonic."""
        if now - self._looked >= _LOOK:
            self._looked = now
            try:
                stamp = self._files.stamp()
                if stamp != self._stamp:
                    self._context = self._files.context()
                    self._stamp = stamp
                    self._log.info("certificate_reloaded")
            except (OSError, ValueError) as error:
                self._log.error("certificate_not_reloaded", reason=str(error))
        return self._context


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
