"""A prepared configuration, with everything it needs built and open: adopted or dropped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import structlog

from quicedge.client_auth.rules import ClientAuth
from quicedge.config.schema import Config, Qlog
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError
from quicedge.proxy.filters import RouteFilters, build_route_filters
from quicedge.proxy.router import Router
from quicedge.quic.key_exchange import MLKEM_MISSING, Group, usable_by_name
from quicedge.quic.settings import QuicConfiguration, server_configuration
from quicedge.quic.tls import CertificateStore
from quicedge.tcp.openssl import SharedTickets
from quicedge.tcp.tls import TlsError, Validations
from quicedge.upstream.group import Upstream
from quicedge.upstream.unusable import UnusableUpstream
from quicedge.worker.tcp_front import Contexts, build_contexts

if TYPE_CHECKING:
    from quicedge.upstream.asgi.upstream import AsgiUpstream
    from quicedge.upstream.static import StaticUpstream

log = structlog.get_logger(__name__)

AnyUpstream: TypeAlias = "Upstream | AsgiUpstream | StaticUpstream | UnusableUpstream"


class Proposal:
    """Everything that a worker needs for a configuration.

    The constructor builds it, or raises UnusableError and leaves nothing open; the running edge is
    not touched before `Edge.adopt`.

    `tolerant`: build as much as possible and log the rest, so that the replacement of a dead worker
    serves all other routes when, for example, one directory is missing.
    """

    def __init__(
        self,
        config: Config,
        certificates: CertificateStore,
        alpn_protocols: Sequence[str],
        *,
        running: Config | None = None,
        upstreams: Mapping[str, AnyUpstream] | None = None,
        running_tls: Contexts | None = None,
        tickets: SharedTickets | None = None,
        validations: Validations | None = None,
        client_auth: ClientAuth | None = None,
        tolerant: bool = False,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`running`, its `upstreams` and TLS contexts: unchanged parts are kept and not checked
        again. `tickets`: of sessions on TCP; `validations`: what it shows to issuers;
        `client_auth`: the hosts that ask clients for certificates, None: none does."""
        self.config = config
        self.certificates = certificates
        self.client_auth = client_auth
        self.router = Router(config.routes)
        self.upstreams: dict[str, AnyUpstream] = {}
        self._built: list[AnyUpstream] = []
        self._applications: list[AsgiUpstream] = []
        """Those of `_built` that run in this process."""
        self.route_filters: RouteFilters = {}
        self._tolerant = tolerant
        self._loop = loop
        try:
            if running is None or running.qlog.directory != config.qlog.directory:
                self._check_directory(config.qlog)
            self.quic = self._quic(alpn_protocols)
            self.groups = self._groups()
            self.tls = self._tls(running_tls or {}, tickets, validations)
            for name, wanted in config.upstreams.items():
                self.upstreams[name] = self._upstream(name, wanted, (upstreams or {}).get(name))
            self.route_filters = build_route_filters(config, self.upstreams, tolerant=tolerant)
        except UnusableError:
            self.drop()
            raise

    def drop(self) -> None:
        """Discard what was built only for this proposal."""
        for filters in self.route_filters.values():
            for item in filters:
                item.retired()
        for upstream in self._built:
            upstream.retire()

    async def start(self) -> None:
        """Wait until the applications that were built for this proposal have started.

        Raises UnusableError; the proposal is then dropped. If tolerant, such an application answers
        503 instead.
        """
        for application in self._applications:
            try:
                await application.start()
            except UnusableError as error:
                if not self._tolerant:
                    self.drop()
                    raise
                log.error("application not started; its routes answer 503", reason=str(error))

    def _upstream(
        self, name: str, config: UpstreamConfig, current: AnyUpstream | None
    ) -> AnyUpstream:
        if current is not None and current.config == config and current.is_usable:
            return current
        built: AnyUpstream
        try:
            built = self._build(name, config, current)
        except UnusableError as error:
            if not self._tolerant:
                raise
            log.error("upstream unusable; its routes answer 503", reason=str(error))
            built = UnusableUpstream(name, config, str(error), loop=self._loop)
        self._built.append(built)
        return built

    def _build(self, name: str, config: UpstreamConfig, current: AnyUpstream | None) -> AnyUpstream:
        if config.is_application:
            # Imported only where it is needed: most edges run no application.
            from quicedge.upstream.asgi.upstream import AsgiUpstream

            application = AsgiUpstream(name, config, loop=self._loop)
            self._applications.append(application)
            return application
        if config.root is not None:
            from quicedge.upstream.static import StaticUpstream

            return StaticUpstream(name, config, loop=self._loop)
        previous = current if isinstance(current, Upstream) else None
        return Upstream(name, config, loop=self._loop, previous=previous)

    def _quic(self, alpn_protocols: Sequence[str]) -> QuicConfiguration:
        try:
            return server_configuration(self.config, alpn_protocols)
        except UnusableError as error:
            if not self._tolerant:
                raise
            log.error("TLS key log disabled", reason=str(error))
            return server_configuration(self.config, alpn_protocols, keylog=False)

    def _groups(self) -> tuple[Group, ...]:
        """The key exchange groups of QUIC."""
        groups = usable_by_name(self.config.tls.groups)
        if not groups:
            raise UnusableError("tls.groups", f"none of them can be used: {MLKEM_MISSING}")
        return groups

    def _tls(
        self, running: Contexts, tickets: SharedTickets | None, validations: Validations | None
    ) -> Contexts:
        """TLS on TCP: each context appends to the key log that `_quic` has created."""
        keylog = self.config.tls.keylog or os.environ.get("SSLKEYLOGFILE") or None
        if self.quic.secrets_log_file is None:
            keylog = None
        try:
            return build_contexts(
                self.config,
                self.certificates,
                keylog,
                running,
                tickets,
                validations,
                self.client_auth,
            )
        except TlsError as error:
            raise UnusableError(error.key, str(error)) from error

    def _check_directory(self, qlog: Qlog) -> None:
        if qlog.directory is None or self._tolerant:
            return
        if not os.path.isdir(qlog.directory):
            raise UnusableError("qlog.directory", f"{qlog.directory}: no such directory")
        if not os.access(qlog.directory, os.W_OK | os.X_OK):
            raise UnusableError(
                "qlog.directory", f"{qlog.directory}: user {os.geteuid()} cannot write there"
            )
