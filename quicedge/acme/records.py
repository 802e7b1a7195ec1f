"""What a storage holds, by name of the host or directory of the issuer."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from urllib.parse import urlsplit

import msgspec

from quicedge.acme.challenge import Proof
from quicedge.acme.schedule import HostRecord
from quicedge.acme.storage import Storage, StorageError
from quicedge.acme.wire import Account
from quicedge.config.acmelimits import PROBE_SIZE
from quicedge.quic.tls import CertificateError, CertificatePem, parse_certificate

_WILDCARD = "_wildcard"
_PROBE = "probe"


class Records:
    """Accounts, certificates and challenges in a storage; raises StorageError."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    # --- certificates -----------------------------------------------------------------------------

    def certificate(self, host: str) -> CertificatePem | None:
        """The certificate of a name; raises StorageError if what is there is none."""
        value = self.storage.read(_certificate(host))
        if value is None:
            return None
        pem = split(host, value)
        try:
            parse_certificate(pem)
        except CertificateError as error:
            raise StorageError(str(error)) from error
        return pem

    def put_certificate(self, host: str, chain_pem: bytes, key_pem: bytes) -> CertificatePem:
        """Key and chain in one value: there is no moment in which they do not fit."""
        value = key_pem.rstrip() + b"\n" + chain_pem.strip() + b"\n"
        self.storage.write(_certificate(host), value)
        return split(host, value)

    def require_room(self) -> None:
        """Raises StorageError unless a certificate could be stored now: one that is issued and lost
        counts towards the issuer's limits."""
        self.storage.write(_PROBE, bytes(PROBE_SIZE))
        self.storage.remove(_PROBE)

    def versions(self) -> dict[str, Hashable]:
        """By name, what changes whenever something about it is stored."""
        found: dict[str, list[Hashable]] = {}
        for folder in ("certificates", "hosts"):
            for name, version in self.storage.versions(folder).items():
                found.setdefault(_host(name), []).append((folder, version))
        return {host: tuple(versions) for host, versions in found.items()}

    # --- what is remembered of names --------------------------------------------------------------

    def host(self, host: str) -> HostRecord:
        value = self.storage.read(_record(host))
        if value is None:
            return HostRecord()
        try:
            return msgspec.json.decode(value, type=HostRecord)
        except msgspec.MsgspecError as error:
            raise StorageError(f"{_record(host)}: {error}") from error

    def put_host(self, host: str, record: HostRecord) -> None:
        self.storage.write(_record(host), msgspec.json.encode(record))

    def remove_host(self, host: str) -> None:
        """Forget a name and its certificate."""
        self.storage.remove(_certificate(host))
        self.storage.remove(_record(host))

    # --- accounts ---------------------------------------------------------------------------------

    def account(self, directory: str) -> Account | None:
        name = _account(directory)
        value = self.storage.read(name)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=Account)
        except msgspec.MsgspecError as error:
            raise StorageError(f"{name}: {error}") from error

    def put_account(self, account: Account) -> None:
        self.storage.write(_account(account.directory), msgspec.json.encode(account))

    # --- challenges -------------------------------------------------------------------------------

    def challenge_versions(self) -> dict[str, Hashable]:
        return self.storage.versions("challenges")

    def challenges(self) -> list[Proof]:
        """The proofs of all orders in progress."""
        found: list[Proof] = []
        for name in self.storage.versions("challenges"):
            value = self.storage.read(f"challenges/{name}")
            if value is not None:  # it may just have been removed
                try:
                    found += msgspec.json.decode(value, type=list[Proof])
                except msgspec.MsgspecError as error:
                    raise StorageError(f"challenges/{name}: {error}") from error
        return found

    def put_challenges(self, host: str, proofs: list[Proof]) -> None:
        self.storage.write(f"challenges/{_file(host)}.json", msgspec.json.encode(proofs))

    def remove_challenges(self, host: str) -> None:
        self.storage.remove(f"challenges/{_file(host)}.json")


def split(host: str, value: bytes) -> CertificatePem:
    """A stored value: the key before the first certificate."""
    key, begin, chain = value.partition(b"-----BEGIN CERTIFICATE-----")
    name = f"acme:{host}"
    return CertificatePem(cert_file=name, key_file=name, cert=begin + chain, key=key)


def _file(host: str) -> str:
    return _WILDCARD + host[1:] if host.startswith("*") else host


def _host(file: str) -> str:
    """The host of a file name."""
    stem = file.removesuffix(".pem").removesuffix(".json")
    return "*" + stem.removeprefix(_WILDCARD) if stem.startswith(f"{_WILDCARD}.") else stem


def _certificate(host: str) -> str:
    return f"certificates/{_file(host)}.pem"


def _record(host: str) -> str:
    return f"hosts/{_file(host)}.json"


def _account(directory: str) -> str:
    digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
    return f"accounts/{urlsplit(directory).hostname or 'issuer'}-{digest}.json"
