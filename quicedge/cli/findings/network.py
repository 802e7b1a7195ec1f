"""Checks of addresses, sockets and descriptors."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator

from quicedge.cli.findings.finding import Finding, Level
from quicedge.cli.findings.running import RunningEdge, holders, name_of
from quicedge.config import limits
from quicedge.config.addresses import parse_listen, parse_resolver
from quicedge.config.host_port import HostPort
from quicedge.config.listeners import Transport, listeners, redirecting
from quicedge.config.schema import Admin, Config, OriginServer, Upstream
from quicedge.supervisor.sockets import ListenError, explain, resolve_listen
from quicedge.upstream.address import Address, address_of, parse_server
from quicedge.upstream.discovered import Answer, DiscoveryError, look_up

CONNECT_TIMEOUT = 1.0
"""Seconds that an origin has to accept a connection."""

NEW_WORKERS = "a reload replaces the workers; connections finish at the old ones"


def listening(config: Config, edge: RunningEdge | None) -> Iterator[Finding]:
    """Check that every address is free, or held by the edge running with this configuration."""
    wanted = []
    for item in listeners(config):
        address = item.address
        try:
            family, bound = resolve_listen(address)
        except ListenError as error:
            yield Finding(Level.ERROR, f"listen {address}", str(error))
            continue
        wanted.append(bound)
        for transport in item.transports:
            if edge is not None and str(bound) in (edge.addresses or ()):
                yield _held(f"listen {address} {transport}", edge)
            else:
                subject = f"listen {address} {transport}"
                yield _listening(subject, transport, family, bound, edge)
    for redirect in redirecting(config):
        subject = f"redirect_http {redirect.address}"
        try:
            family, bound = resolve_listen(redirect.address)
        except ListenError as error:
            yield Finding(Level.ERROR, subject, str(error))
            continue
        found = _listening(subject, Transport.TCP, family, bound, edge)
        if found.level is Level.ERROR and not redirect.required:
            message = f"{found.message}; plain HTTP is not redirected"
            found = Finding(Level.WARNING, subject, message, found.remedy)
        yield found
    yield from _new_workers(config, wanted, edge)


def _listening(
    subject: str,
    transport: Transport,
    family: socket.AddressFamily,
    wanted: HostPort,
    edge: RunningEdge | None,
) -> Finding:
    with socket.socket(family, transport.socket_kind) as probe:
        try:
            if transport is Transport.TCP:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(wanted)
        except OSError as error:
            reason, _, remedy = explain(error, wanted.port, transport).partition(": ")
            if error.errno == errno.EADDRINUSE:
                pids = holders(transport, family, wanted.port)
                if edge is not None and (edge.pid in pids or not pids):
                    return _held(subject, edge)
                if pids:
                    reason = f"{reason} by {name_of(pids[0])}"
            return Finding(Level.ERROR, subject, reason, remedy)
    return Finding(Level.OK, subject, "free")


def _held(subject: str, edge: RunningEdge) -> Finding:
    return Finding(Level.OK, subject, f"held by the running edge (pid {edge.pid})")


def _new_workers(
    config: Config, wanted: list[HostPort], edge: RunningEdge | None
) -> Iterator[Finding]:
    """Changes for which a reload replaces the workers of the running edge."""
    if edge is None:
        return
    if edge.addresses is not None and not _same(wanted, edge.addresses):
        has = ", ".join(edge.addresses)
        yield Finding(Level.OK, "listen", f"the running edge listens on {has}", NEW_WORKERS)
    workers = config.workers
    count = min(os.cpu_count() or 1, limits.MAX_WORKERS) if workers == "auto" else workers
    if edge.workers is not None and edge.workers != count:
        yield Finding(Level.OK, "workers", f"the running edge has {edge.workers}", NEW_WORKERS)


def _same(wanted: list[HostPort], bound: list[str]) -> bool:
    """Whether the bound addresses are the wanted ones; port 0 matches any port."""
    return len(wanted) == len(bound) and all(
        str(one) == other or (one.port == 0 and other.startswith(f"{one.url_host}:"))
        for one, other in zip(wanted, bound, strict=True)
    )


def administration(admin: Admin, edge: RunningEdge | None) -> Iterator[Finding]:
    """Check the address of the admin API."""
    if not admin.enabled:
        return
    subject = f"admin {admin.listen}"
    if edge is not None and edge.addresses is not None:
        yield _held(subject, edge)
    elif admin.listen.startswith("unix:"):
        yield _admin_path(subject, admin.listen.removeprefix("unix:"))
    else:
        yield _admin_port(subject, admin.listen)


def _admin_port(subject: str, listen: str) -> Finding:
    address = parse_listen(listen)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return Finding(
                Level.ERROR, subject, error.strerror or str(error),
                f"`ss -ltnp 'sport = :{address.port}'` shows who holds it; or change admin.listen",
            )  # fmt: skip
    return Finding(Level.OK, subject, "free")


def _admin_path(subject: str, path: str) -> Finding:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return Finding(
            Level.ERROR, subject, f"directory {directory} does not exist", f"mkdir -p {directory}"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding(Level.ERROR, subject, f"{directory} is not writable")
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return Finding(Level.ERROR, subject, "exists and is not a socket", f"remove {path}")
    except FileNotFoundError:
        return Finding(Level.OK, subject, "can be created")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return Finding(Level.OK, subject, "a stale socket; it will be replaced")
        except OSError as error:
            return Finding(Level.ERROR, subject, error.strerror or str(error))
    return Finding(Level.ERROR, subject, "in use by another process")


def buffers() -> Iterator[Finding]:
    """Check the socket buffer sizes that the kernel grants."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, option, wanted, key in (
            ("receive", socket.SO_RCVBUF, limits.UDP_RECEIVE_BUFFER, "net.core.rmem_max"),
            ("send", socket.SO_SNDBUF, limits.UDP_SEND_BUFFER, "net.core.wmem_max"),
        ):
            probe.setsockopt(socket.SOL_SOCKET, option, wanted)
            # Linux reports twice the usable size (socket(7)).
            granted = probe.getsockopt(socket.SOL_SOCKET, option) // 2
            subject = f"UDP {name} buffer"
            if granted >= wanted or os.geteuid() == 0:
                yield Finding(Level.OK, subject, f"{wanted} bytes granted")
            else:
                yield Finding(
                    Level.WARNING, subject,
                    f"{granted} of {wanted} bytes granted: bursts will be lost",
                    f"sysctl -w {key}={wanted}",
                )  # fmt: skip


def origins(config: Config) -> Iterator[Finding]:
    """Check that each server of an upstream accepts connections from this user."""
    for name, upstream in config.upstreams.items():
        for origin in upstream.origins:
            subject = f"upstream {name} {origin.text}"
            if origin.discover is None:
                yield _origin(subject, parse_server(origin.url))
            else:
                yield from _discovered(subject, origin, upstream)


def _discovered(subject: str, origin: OriginServer, upstream: Upstream) -> Iterator[Finding]:
    """Look up the servers that a name stands for, and check the first ones."""
    from quicedge.upstream.resolver import DnsResolver

    async def ask() -> Answer:
        return await look_up(origin, DnsResolver([parse_resolver(t) for t in upstream.resolvers]))

    try:
        answer = asyncio.run(ask())
    except DiscoveryError as error:
        yield Finding(Level.WARNING, subject, str(error), "check the name and the resolvers")
        return
    count = len(answer.servers)
    delay = f"{answer.refresh_after:g} s"
    message = f"{count} server{'s' if count > 1 else ''}, to be looked up again in {delay}"
    if answer.problem:
        yield Finding(Level.WARNING, subject, f"{message}; {answer.problem}")
    else:
        yield Finding(Level.OK, subject, message)
    common = address_of(origin)
    for server in sorted(answer.servers)[: limits.DISCOVERY_SHOWN]:
        address = common.at(server.host, server.port)
        yield _origin(f"{subject} {address.text}", address)


def _origin(subject: str, address: Address) -> Finding:
    try:
        if address.unix is not None:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_TIMEOUT)
                probe.connect(address.unix)
        else:
            socket.create_connection((address.host, address.port), CONNECT_TIMEOUT).close()
    except socket.gaierror as error:
        return Finding(
            Level.WARNING, subject, f"name resolution failed: {error.strerror}", "check the name"
        )
    except PermissionError as error:
        return Finding(Level.ERROR, subject, f"{error.strerror} (as user {os.geteuid()})")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        return Finding(Level.WARNING, subject, f"does not answer: {reason}", "start it")
    return Finding(Level.OK, subject, "accepts connections")


def register(config: Config) -> Iterator[Finding]:
    """Check the store that a fleet shares."""
    if config.limits.redis is not None:
        yield _redis(config.limits.redis, config.quic.early_data)


def _redis(url: str, early_data: bool) -> Finding:
    import redis

    subject = "limits.redis"
    try:
        with redis.Redis.from_url(
            url, socket_timeout=CONNECT_TIMEOUT, socket_connect_timeout=CONNECT_TIMEOUT
        ) as store:
            about: dict[str, object] = store.info()
    except redis.RedisError as error:
        return Finding(
            Level.WARNING, subject, f"does not answer: {error}",
            "meanwhile workers count on their own and early data waits for the handshake",
        )  # fmt: skip
    policy = about.get("maxmemory_policy", "noeviction")
    if early_data and "run_id" not in about:
        return Finding(Level.WARNING, subject, "reports no run_id: cannot be used for early data")
    if early_data and policy != "noeviction":
        return Finding(
            Level.WARNING, subject, f"maxmemory-policy is {policy}: used tickets may be evicted",
            "set it to noeviction",
        )  # fmt: skip
    return Finding(Level.OK, subject, f"answers, Redis {about.get('redis_version', '')}")


def descriptors() -> Iterator[Finding]:
    """Check the limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MIN_DESCRIPTORS
    if soft < wanted:
        yield Finding(
            Level.WARNING, "open files", f"limit {soft} is low: origins may become unreachable",
            f"ulimit -n {min(hard, wanted) if hard > 0 else wanted}, or LimitNOFILE= in systemd",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "open files", f"limit {soft}")
