"""The settings in use, and their replacement by a reload or its reversal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from quicedge.client_auth.material import ClientAuthError, read_client_auth
from quicedge.config.changes import changes
from quicedge.config.limits import WORKER_FAILED_STARTS
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.quic.ticket_keys import SharedKeys
from quicedge.quic.tls import CertificateError, CertificatePem
from quicedge.supervisor import notify
from quicedge.supervisor.change import Change, abort_all, prepare_all
from quicedge.supervisor.key_store import is_store
from quicedge.supervisor.ownership import chown_logs, restore_owners
from quicedge.supervisor.reload import (
    ReloadError,
    commit,
    prepare,
    read_certificates,
    require_same_place,
    reread,
)
from quicedge.supervisor.workers import Worker, WorkerState
from quicedge.telemetry.logs import Logs
from quicedge.worker.control import Settings
from quicedge.worker.privileges import Identity

log = structlog.get_logger("quicedge.supervisor")

ReadSettings = Callable[[Config], Settings]
"""Reads new settings, given the current configuration; raises ReloadError."""


class CurrentSettings:
    """Settings are changed one at a time, in this process and all workers or in none.

    `begin` returns the parts of a change to other settings, `managed` the certificates that are
    ordered by name, `rotated` the shared keys of a store that rotates them; `turn` raises
    ReloadError when nothing can be changed any more, `check` for settings that this process could
    not use;
    `on_change` is called with the new settings after each change. `started` must be called for
    every worker that becomes ready, `failed_to_start` for every replacement that ends before.
    """

    def __init__(
        self,
        settings: Settings,
        path: str | None,
        logs: Logs,
        identity: Identity | None,
        *,
        begin: Callable[[Settings], list[Change]],
        managed: Callable[[], list[CertificatePem]],
        rotated: Callable[[], SharedKeys | None],
        turn: Callable[[], None],
        check: Callable[[Settings], None],
        on_change: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.logs = logs
        self.reloads = 0
        """Successful reloads."""
        self.error: str | None = None
        """Why the last reload failed or was reverted."""
        self._path = path
        self._identity = identity
        self._begin = begin
        self._managed = managed
        self._rotated = rotated
        self._turn = turn
        self._check = check
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._proven = settings
        """The last settings that a worker has started with."""
        self._failed_starts = 0
        """Consecutive workers that ended before they were ready."""

    @property
    def config(self) -> Config:
        return self.settings.config

    def hold(self) -> asyncio.Lock:
        """Within it, nothing is changed."""
        return self._lock

    def chown_logs(self) -> None:
        """Create the log files that unprivileged workers append to."""
        chown_logs(self.config.log, self._identity)

    async def reload(self, read: ReadSettings | None = None) -> list[str]:
        """Change to the settings that `read` returns, by default those of the configuration file.

        Returns what has changed, in the words of the file. Raises ReloadError, which is logged and
        kept in `error`; then nothing has changed.
        """
        async with self._lock:
            self._turn()
            notify.notify(*notify.reloading())
            try:
                settings = self._read(read)
                found = self._differences(settings)
                await self._change(settings)
            except (ReloadError, UnusableError) as error:
                self.error = str(error)
                log.error("reload failed; configuration unchanged", error=str(error))
                notify.notify("READY=1", "STATUS=reload failed; configuration unchanged")
                raise ReloadError(str(error)) from error
            self._failed_starts = 0
            self.error = None
            self.reloads += 1
            log.info("configuration reloaded", config=self._path, changes=found)
            notify.notify("READY=1", "STATUS=configuration reloaded")
            return found

    async def validate(self, read: ReadSettings | None = None) -> list[str]:
        """What `reload` would change; raises ReloadError where it would."""
        async with self._lock:
            self._turn()
            try:
                settings = self._read(read)
                await self._try(settings)
            except UnusableError as error:
                raise ReloadError(str(error)) from error
            return self._differences(settings)

    def _read(self, read: ReadSettings | None) -> Settings:
        settings = reread(self._path, self.config) if read is None else read(self.config)
        require_same_place(settings, self.settings)
        self._check(settings)
        location = settings.config.tls.shared_keys
        if location is not None and is_store(location):
            settings = msgspec.structs.replace(settings, shared_keys=self._rotated())
        return msgspec.structs.replace(settings, managed=self._managed())

    async def refresh_certificates(self, *, files: bool = False) -> None:
        """Serve the certificates that there are now, with the same configuration; with `files`,
        read those of the operator again.

        Errors are logged; the former ones are then served on.
        """
        async with self._lock:
            certificates = self.settings.certificates
            client_auth = self.settings.client_auth
            if files:
                try:
                    certificates = read_certificates(self.config.tls)
                    client_auth = read_client_auth(self.config.tls)
                except (CertificateError, ClientAuthError) as error:
                    log.error("certificates not replaced", error=str(error))
                    return
            settings = msgspec.structs.replace(
                self.settings,
                certificates=certificates,
                client_auth=client_auth,
                managed=self._managed(),
            )
            await self._refresh(settings, "certificates not replaced")

    async def refresh_shared_keys(self) -> None:
        """Seal with the keys that have rotated, with the same configuration."""
        async with self._lock:
            settings = msgspec.structs.replace(self.settings, shared_keys=self._rotated())
            await self._refresh(settings, "shared keys not replaced")

    async def _refresh(self, settings: Settings, failure: str) -> None:
        if settings == self.settings:
            return
        was_proven = self.settings is self._proven
        try:
            await self._change(settings)
        except (ReloadError, UnusableError) as error:
            log.error(failure, error=str(error))
            return
        if was_proven:
            self._proven = settings

    def _differences(self, new: Settings) -> list[str]:
        """Changes of the configuration and of the files that it names."""
        old = self.settings
        found = changes(old.config, new.config)
        known = {item.cert_file: item for item in old.certificates}
        for item in new.certificates:
            if item.cert_file in known and item != known[item.cert_file]:
                found.append(f"tls.certificates: {item.cert_file}: content changed")
        if new.client_auth != old.client_auth and new.config.tls == old.config.tls:
            found.append("tls.client_auth: content of its files changed")
        if new.shared_keys != old.shared_keys and new.config.tls == old.config.tls:
            found.append(f"tls.shared_keys: {new.config.tls.shared_keys}: content changed")
        if new.fleet != old.fleet and new.config.fleet == old.config.fleet:
            name = new.config.fleet.connection_id_keys
            found.append(f"fleet.connection_id_keys: {name}: content changed")
        return found

    async def started(self, worker: Worker) -> None:
        """A worker is ready: apply changes made while it started."""
        if worker.spec is not None and worker.spec.settings is self.settings:
            self._proven = self.settings
            self._failed_starts = 0
        async with self._lock:
            if worker.settings is self.settings or worker.state is not WorkerState.READY:
                return
            try:
                await prepare([worker], self.settings)
            except ReloadError as error:
                log.error("worker cannot apply the settings; replacing it", error=str(error))
                worker.kill()
                return
            await commit([worker], self.settings)

    async def failed_to_start(self, reason: str) -> None:
        """A worker ended before it was ready: after several, revert to the last proven settings."""
        self._failed_starts += 1
        async with self._lock:
            if self.settings is self._proven or self._failed_starts < WORKER_FAILED_STARTS:
                return
            try:
                await self._change(self._proven)
            except (ReloadError, UnusableError) as error:
                log.error("cannot revert to the previous configuration", error=str(error))
                self._failed_starts = 0
                return
            self.error = f"workers fail to start with it: {reason}"
            log.error(
                "configuration reverted; workers failed to start with the new one",
                error=reason,
                failed_starts=self._failed_starts,
            )
            notify.notify("STATUS=configuration reverted; workers failed to start with the new one")

    async def _try(self, settings: Settings) -> None:
        """Have everybody prepare the settings, and drop them; raises as `_change` does."""
        logs = self.logs.successor(settings.config.log)
        owners = chown_logs(settings.config.log, self._identity)
        try:
            await abort_all(await prepare_all(self._begin(settings)))
        finally:
            restore_owners(owners)
            self.logs.discard(logs)

    async def _change(self, settings: Settings) -> None:
        """Switch to other settings, here and in every worker; raises UnusableError or ReloadError,
        and then nothing has changed."""
        logs = self.logs.successor(settings.config.log)
        owners = chown_logs(settings.config.log, self._identity)
        try:
            parts = await prepare_all(self._begin(settings))
        except BaseException:
            restore_owners(owners)
            self.logs.discard(logs)
            raise
        # From here on new workers start with them; those that are starting catch up in `started`.
        self.settings = settings
        self.logs = self.logs.replace_by(logs)
        for part in parts:
            await part.commit()
        await self._on_change(settings)
