"""The trust stores of this machine: the system's, and those of browsers (NSS)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

_COMMAND_TIMEOUT = 60.0
_SHARED_NSS = Path(".pki/nssdb")
"""Of Chromium and its relatives, below the home directory."""
_OTHER_NSS = (
    "snap/chromium/current/.pki/nssdb",
    ".mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
)


class TrustError(Exception):
    """A store cannot be changed; the message says why."""


class Authority(NamedTuple):
    """A CA to trust."""

    pem: bytes
    name: str
    """What it is called in stores, unlike all others."""


def authority(path: Path) -> Authority:
    """The CA in a PEM file; raises TrustError."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}") from error
    except (ValueError, x509.ExtensionNotFound) as error:
        raise TrustError(f"{path}: holds no CA certificate") from error
    if not constraints.ca:
        raise TrustError(f"{path}: is the certificate of a server, not of a CA")
    digest = certificate.fingerprint(hashes.SHA256()).hex()[:16]
    return Authority(certificate.public_bytes(Encoding.PEM), f"quicedge-{digest}")


class TrustStore(Protocol):
    """Where clients look up whom to trust. Methods raise TrustError."""

    @property
    def title(self) -> str: ...

    def has(self, ca: Authority) -> bool: ...

    def add(self, ca: Authority) -> None: ...

    def remove(self, ca: Authority) -> None: ...


class SystemStore(NamedTuple):
    """A directory of additional CAs, and the command that makes them take effect."""

    directory: Path
    suffix: str
    command: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"system ({self.directory})"

    def _file(self, ca: Authority) -> Path:
        return self.directory / f"{ca.name}{self.suffix}"

    def has(self, ca: Authority) -> bool:
        return self._file(ca).exists()

    def add(self, ca: Authority) -> None:
        try:
            self._file(ca).write_bytes(ca.pem)
            self._file(ca).chmod(0o644)
        except OSError as error:
            raise TrustError(f"{error.filename}: {error.strerror}; run it as root") from error
        _run(self.command)

    def remove(self, ca: Authority) -> None:
        try:
            self._file(ca).unlink(missing_ok=True)
        except OSError as error:
            raise TrustError(f"{error.filename}: {error.strerror}; run it as root") from error
        _run(self.command)


_SYSTEMS = (
    SystemStore(Path("/usr/local/share/ca-certificates"), ".crt", ("update-ca-certificates",)),
    SystemStore(Path("/etc/pki/ca-trust/source/anchors"), ".pem", ("update-ca-trust", "extract")),
    SystemStore(
        Path("/etc/ca-certificates/trust-source/anchors"), ".crt", ("trust", "extract-compat")
    ),
)
"""Debian and Alpine; Fedora and Red Hat; Arch."""


class NssStore(NamedTuple):
    """A database of NSS, as browsers have one."""

    directory: Path

    @property
    def title(self) -> str:
        return f"NSS ({self.directory})"

    def _certutil(self, *arguments: str, given: bytes = b"") -> None:
        _run(("certutil", "-d", f"sql:{self.directory}", *arguments), given)

    def has(self, ca: Authority) -> bool:
        try:
            self._certutil("-L", "-n", ca.name)
        except TrustError:
            return False
        return True

    def add(self, ca: Authority) -> None:
        if not (self.directory / "cert9.db").exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._certutil("-N", "--empty-password")
        self._certutil("-A", "-t", "C,,", "-n", ca.name, "-a", given=ca.pem)

    def remove(self, ca: Authority) -> None:
        self._certutil("-D", "-n", ca.name)


def trust_stores(home: Path) -> Iterator[TrustStore]:
    """The stores that this machine and user have."""
    for system in _SYSTEMS:
        if system.directory.is_dir() and shutil.which(system.command[0]) is not None:
            yield system
            break
    if shutil.which("certutil") is not None:
        yield NssStore(home / _SHARED_NSS)
        for pattern in _OTHER_NSS:
            for database in sorted(home.glob(f"{pattern}/cert9.db")):
                yield NssStore(database.parent)


def _run(command: Sequence[str], given: bytes = b"") -> None:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=_COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrustError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise TrustError(f"{command[0]}: {said.rpartition(chr(10))[2] or done.returncode}")
