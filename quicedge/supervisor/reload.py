"""Reloading: read and validate the configuration, then apply it to all workers or none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from quicedge.client_auth.material import ClientAuthError, read_client_auth
from quicedge.config.certificate_files import certificate_files, has_certificates
from quicedge.config.changes import with_passwords
from quicedge.config.limits import MAX_WORKERS
from quicedge.config.listeners import Transport, listeners, redirecting
from quicedge.config.loader import ConfigError, load_config, parse_document
from quicedge.config.schema import Config, Tls
from quicedge.quic.fleet_identity import (
    FleetIdentityError,
    another_key,
    marks_of,
    read_identity,
)
from quicedge.quic.ticket_keys import SharedKeyError, read_shared_keys
from quicedge.quic.tls import CertificateError, CertificatePem, parse_certificate, read_certificate
from quicedge.supervisor.key_store import is_store
from quicedge.supervisor.start_timeout import start_timeout
from quicedge.supervisor.workers import Worker
from quicedge.worker.control import ControlError, Settings

log = structlog.get_logger(__name__)

FIXED_AT_START = ("user", "group", "state_directory", "control_socket", "pid_file")
"""Keys that this process has acted upon for good; changing them requires a restart."""

DOCUMENT = "request"
"""Names a configuration that came in a request, in the place of its file."""


class ReloadError(Exception):
    """The new configuration cannot be applied; the message says where and why."""


def read_certificates(tls: Tls) -> list[CertificatePem]:
    """The certificates in files, readable and complete; raises CertificateError."""
    found = [
        read_certificate(item.cert, item.key, default=item.default)
        for item in certificate_files(tls)
    ]
    for pem in found:
        parse_certificate(pem)
    return found


def read_settings(config: Config) -> Settings:
    """Read and validate the certificates and shared keys of `config`; raises ReloadError."""
    try:
        found = read_certificates(config.tls)
    except CertificateError as error:
        raise ReloadError(f"tls.certificates: {error}") from error
    sources = config.tls.certificates or config.tls.certificate_directories
    if sources and not found and config.tls.acme is None:
        raise ReloadError("tls: no certificate is found in the files and directories configured")
    try:
        client_auth = read_client_auth(config.tls)
    except ClientAuthError as error:
        raise ReloadError(str(error)) from error
    try:
        path = config.tls.shared_keys
        # Those of a store change by themselves (`supervisor.key_rotation`).
        shared = None if path is None or is_store(path) else read_shared_keys(path)
    except SharedKeyError as error:
        raise ReloadError(f"tls.shared_keys: {error}") from error
    try:
        fleet = read_identity(config.fleet)
    except FleetIdentityError as error:
        raise ReloadError(str(error)) from error
    return Settings(
        config=config,
        certificates=found,
        client_auth=client_auth,
        shared_keys=shared,
        fleet=fleet,
    )


def number_of_workers(config: Config) -> int:
    """How many workers a configuration asks for."""
    if config.workers == "auto":
        return min(os.cpu_count() or 1, MAX_WORKERS)
    return config.workers


def needs_new_workers(new: Config, current: Config) -> bool:
    """Whether a change is one of processes or sockets, which no worker can make by itself."""
    return (
        number_of_workers(new) != number_of_workers(current)
        or _sockets(new) != _sockets(current)
        or _redirect_addresses(new) != _redirect_addresses(current)
    )


def _sockets(config: Config) -> list[tuple[str, tuple[Transport, ...]]]:
    return [(item.address, item.transports) for item in listeners(config)]


def require_same_place(new: Settings, current: Settings) -> None:
    """Raise ReloadError if a live connection would be lost: its ID or reset token would change."""
    one, other = new.fleet, current.fleet
    for key in ("server_id", "nonce_length", "secret"):
        if getattr(one, key, None) != getattr(other, key, None):
            name = "secret_file" if key == "secret" else key
            raise ReloadError(f"fleet.{name}: requires a restart")
    if (reason := another_key(one, marks_of(other))) is not None:
        raise ReloadError(reason)


def reread(path: str | None, current: Config) -> Settings:
    """Read the configuration at `path` (the current one if None), its certificates and shared keys.

    Raises ReloadError if any change requires a restart: there is no partial reload.
    """
    return settings_of(_read_file(path, current), path or "command line", current)


def read_document(data: bytes, path: str | None, current: Config, *, is_json: bool) -> Settings:
    """The same for a document that takes the place of the file, whose relative names it has."""
    directory = Path.cwd() if path is None else Path(path).parent
    try:
        new = parse_document(data, DOCUMENT, directory, is_json=is_json)
    except ConfigError as error:
        raise ReloadError(str(error)) from error
    return settings_of(with_passwords(new, current), DOCUMENT, current)


def _read_file(path: str | None, current: Config) -> Config:
    if path is None:
        return current
    if Path(path).exists() and not Path(path).is_file():
        # Reading a pipe a second time would block the supervisor until data arrives.
        raise ReloadError(f"{path}: is not a regular file and cannot be read again")
    try:
        return load_config(path)
    except ConfigError as error:
        raise ReloadError(str(error)) from error
    except OSError as error:
        raise ReloadError(f"{path}: {error.strerror}") from error


def settings_of(new: Config, source: str, current: Config) -> Settings:
    """The settings of a configuration that takes the place of `current`; raises ReloadError."""
    if not has_certificates(new.tls):
        if current.tls.certificates == [] and has_certificates(current.tls):
            raise ReloadError(f"{source}: tls: no certificate is left to serve")
        # The development certificate, generated at start.
        new = msgspec.structs.replace(
            new, tls=msgspec.structs.replace(new.tls, certificates=current.tls.certificates)
        )
    for key in FIXED_AT_START:
        if getattr(new, key) != getattr(current, key):
            raise ReloadError(f"{source}: {key}: requires a restart")
    return read_settings(new)


# --- two-phase commit: every worker prepares, then all commit or all abort -------------------


async def prepare(workers: Iterable[Worker], settings: Settings) -> None:
    """Have every worker prepare the settings.

    Raises ReloadError when one cannot; then all have aborted.
    """
    workers = list(workers)
    timeout = start_timeout(settings.config)
    answers = await asyncio.gather(
        *(worker.channel.call("prepare_settings", settings, timeout=timeout) for worker in workers),
        return_exceptions=True,
    )
    refusals: dict[str, list[int]] = {}
    for worker, answer in zip(workers, answers, strict=True):
        if isinstance(answer, ControlError):
            refusals.setdefault(str(answer), []).append(worker.slot)
        elif isinstance(answer, BaseException):
            raise answer
    if refusals:
        await abort(workers)
        raise ReloadError(
            "; ".join(
                f"{reason} (worker {', '.join(map(str, slots))})"
                for reason, slots in refusals.items()
            )
        )


async def abort(workers: Iterable[Worker]) -> None:
    """Have every worker discard what it prepared."""
    await asyncio.gather(
        *(worker.channel.call("abort_settings") for worker in workers), return_exceptions=True
    )


async def commit(workers: Iterable[Worker], settings: Settings) -> None:
    """Have every worker apply what it prepared.

    Only the worker itself can still fail; it is then replaced by one that starts with the new
    settings.
    """

    async def one(worker: Worker) -> None:
        try:
            await worker.channel.call("commit_settings")
        except ControlError as error:
            log.error("worker failed to commit; replacing it", slot=worker.slot, error=str(error))
            worker.kill()
        else:
            worker.settings = settings

    await asyncio.gather(*(one(worker) for worker in workers))


def _redirect_addresses(config: Config) -> list[tuple[str, bool]]:
    return [(item.address, item.required) for item in redirecting(config)]
