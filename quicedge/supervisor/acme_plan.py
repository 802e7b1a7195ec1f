"""What a configuration asks of ACME, checked before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from quicedge.acme.challenge import ChallengeKind
from quicedge.acme.directory_storage import DirectoryStorage
from quicedge.acme.issuers import Issuer, IssuerKeyError, issuers_of
from quicedge.acme.names import wanted
from quicedge.acme.storage import Storage
from quicedge.config.acmelimits import HOSTS_MAX
from quicedge.config.schema import Acme, Config
from quicedge.quic.tls import validity
from quicedge.worker.control import Settings


class AcmeError(Exception):
    """ACME cannot be used as configured; the message names the key."""


class Reach(NamedTuple):
    """How issuers can reach the edge."""

    http: bool
    """Plain HTTP is served, for HTTP-01."""
    tls: bool
    """TLS on TCP is served, for TLS-ALPN-01."""


class Plan(NamedTuple):
    """A configuration, ready to be used."""

    config: Config
    acme: Acme
    issuers: dict[str, Issuer]
    """By directory URL, most preferred first."""
    hosts: list[str]
    storage_name: str
    reach: Reach

    @property
    def kinds(self) -> list[ChallengeKind]:
        """The challenges that the edge can meet, most preferred first."""
        return _kinds(self.acme, self.reach)

    @property
    def is_shared(self) -> bool:
        """Whether other hosts use the storage, too."""
        return self.acme.storage is not None

    @property
    def storage_title(self) -> str:
        """The storage as it may be shown, without a password."""
        scheme, separator, rest = self.storage_name.partition("://")
        return scheme + separator + rest.rpartition("@")[2] if separator else self.storage_name

    def open_storage(self) -> Storage:
        return _storage(self.storage_name)


def plan(settings: Settings, state: Path | None, reach: Reach) -> Plan | None:
    """What the settings ask for, None if nothing; raises AcmeError."""
    config = settings.config
    acme = config.tls.acme
    if acme is None:
        return None
    try:
        issuers = {issuer.directory: issuer for issuer in issuers_of(acme)}
    except IssuerKeyError as error:
        raise AcmeError(str(error)) from error
    storage = _storage_name(acme, state)
    covered = {name for pem in settings.certificates for name in validity(pem).names}
    hosts = wanted(config, covered)
    if not (hosts or covered or acme.on_demand):
        raise AcmeError(
            "tls.acme: there is no host that a public issuer may have a certificate for; name one "
            "in a route or in tls.acme.hosts, or set tls.certificates"
        )
    if len(hosts) > HOSTS_MAX:
        raise AcmeError(f"tls.acme: {len(hosts)} hosts, at most {HOSTS_MAX}")
    if not acme.dns_command and (hosts or acme.on_demand is not None) and not _kinds(acme, reach):
        raise AcmeError(
            "tls.acme.challenges: issuers cannot reach the edge: port 80 is not served "
            "(redirect_http), or no address speaks h2 or http/1.1"
        )
    return Plan(config, acme, issuers, hosts, storage, reach)


def _storage_name(acme: Acme, state: Path | None) -> str:
    if acme.storage is not None:
        return acme.storage
    if state is None:
        raise AcmeError("tls.acme: requires state_directory, where certificates outlive a restart")
    return str(state / "acme")


def open_storage(acme: Acme, state: Path | None) -> Storage:
    """The storage of a configuration; raises AcmeError or StorageError."""
    return _storage(_storage_name(acme, state))


def _kinds(acme: Acme, reach: Reach) -> list[ChallengeKind]:
    """The challenges that the edge can meet, most preferred first."""
    if acme.dns_command:
        return [ChallengeKind.DNS_01]
    possible = {ChallengeKind.HTTP_01: reach.http, ChallengeKind.TLS_ALPN_01: reach.tls}
    return [kind for name in acme.challenges if possible[kind := ChallengeKind(name)]]


def _storage(name: str) -> Storage:
    if "://" in name:
        from quicedge.acme.redis_storage import RedisStorage

        return RedisStorage(name)
    return DirectoryStorage(name)
