"""What may go wrong with a configuration on this machine: small checks, each with its remedy."""

from __future__ import annotations

import datetime
import os
import resource
import socket
import stat
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from cryptography import x509

from quicedge.config import limits
from quicedge.config.schema import Certificate, Config
from quicedge.quic.sharedkeys import SharedKeyError, read_shared_keys
from quicedge.quic.tls import (
    CertificateError,
    ServerCertificate,
    parse_certificate,
    read_certificate,
)
from quicedge.supervisor.sockets import ListenError, explain, parse_address
from quicedge.upstream.address import parse_server
from quicedge.worker.privileges import PrivilegeError, identity_of

EXPIRY_WARNING = datetime.timedelta(days=14)
CONNECT_TIMEOUT = 1.0
"""Seconds an origin gets to accept a connection."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str
    remedy: str = ""


def examine(config: Config) -> list[Finding]:
    """Everything that can be known without starting the edge."""
    found = []
    for address in config.listen:
        found += list(_listening(address))
    found += list(_buffers())
    covered: list[ServerCertificate] = []
    for certificate in config.tls.certificates:
        found += list(_certificate(certificate, covered))
    if config.tls.certificates:
        found += list(_hosts(config, covered))
    if config.tls.shared_keys is not None:
        found.append(_shared_keys(config.tls.shared_keys))
    if config.limits.redis is not None:
        found.append(_redis(config.limits.redis, config.quic.early_data))
    for name, upstream in config.upstreams.items():
        for url in upstream.servers:
            found.append(_origin(name, url))
        if upstream.root is not None:
            found.append(_root(name, upstream.root))
    found.append(_descriptors())
    found.append(_identity(config))
    return found


def _listening(address: str) -> Iterator[Finding]:
    subject = f"listen {address}"
    try:
        family, host, port = parse_address(address)
    except ListenError as error:
        yield Finding("error", subject, str(error))
        return
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
        except OSError as error:
            reason, _, remedy = explain(error, port).partition(": ")
            yield Finding("error", subject, reason, remedy)
        else:
            yield Finding("ok", subject, "free")


def _buffers() -> Iterator[Finding]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, option, wanted, key in (
            ("receive", socket.SO_RCVBUF, limits.UDP_RECEIVE_BUFFER, "net.core.rmem_max"),
            ("send", socket.SO_SNDBUF, limits.UDP_SEND_BUFFER, "net.core.wmem_max"),
        ):
            probe.setsockopt(socket.SOL_SOCKET, option, wanted)
            # Linux tells twice what it grants, for its own bookkeeping.
            granted = probe.getsockopt(socket.SOL_SOCKET, option) // 2
            subject = f"UDP {name} buffer"
            if granted >= wanted or os.geteuid() == 0:
                yield Finding("ok", subject, f"{wanted} bytes are granted")
            else:
                yield Finding(
                    "warning", subject, f"{granted} of {wanted} bytes: bursts will be lost",
                    f"sysctl -w {key}={wanted}",
                )  # fmt: skip


def _shared_keys(path: str) -> Finding:
    try:
        return Finding("ok", "tls.shared_keys", str(read_shared_keys(path)).strip("<>"))
    except SharedKeyError as error:
        return Finding(
            "error", "tls.shared_keys", str(error), "openssl rand -hex 32 makes a line of it"
        )


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
            "warning", subject, f"does not answer: {error}",
            "until it does, workers count for themselves and early data waits for the handshake",
        )  # fmt: skip
    policy = about.get("maxmemory_policy", "noeviction")
    if early_data and "run_id" not in about:
        return Finding("warning", subject, "has no run_id: it is no register of early data")
    if early_data and policy != "noeviction":
        return Finding(
            "warning", subject, f"maxmemory-policy is {policy}: it may forget used tickets",
            "set it to noeviction",
        )  # fmt: skip
    return Finding("ok", subject, f"answers, Redis {about.get('redis_version', '')}")


def _certificate(item: Certificate, covered: list[ServerCertificate]) -> Iterator[Finding]:
    subject = f"certificate {item.cert}"
    try:
        pem = read_certificate(item.cert, item.key, private=False)
        covered.append(parse_certificate(pem))
        chain = x509.load_pem_x509_certificates(pem.cert)
    except CertificateError as error:
        yield Finding("error", subject, str(error))
        return
    now = datetime.datetime.now(datetime.UTC)
    leaf = chain[0]
    left = leaf.not_valid_after_utc - now
    if left <= datetime.timedelta(0):
        yield Finding(
            "error", subject, f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}", "renew it"
        )
    elif leaf.not_valid_before_utc > now:
        yield Finding("error", subject, f"not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")
    elif left < EXPIRY_WARNING:
        yield Finding("warning", subject, f"expires in {left.days} days", "renew it")
    else:
        yield Finding("ok", subject, f"good until {leaf.not_valid_after_utc:%Y-%m-%d}")
    for lower, upper in pairwise(chain):
        if lower.issuer != upper.subject:
            yield Finding(
                "error", subject, "the chain is out of order", "leaf first, then each issuer"
            )
    mode = stat.S_IMODE(os.stat(item.key).st_mode)
    if mode & 0o077:
        yield Finding(
            "error", f"key {item.key}", f"mode {mode:o}: others than its owner may read it",
            f"chmod 600 {item.key}",
        )  # fmt: skip


def _hosts(config: Config, certificates: list[ServerCertificate]) -> Iterator[Finding]:
    for host in dict.fromkeys(route.host for route in config.routes):
        if host == "*":
            continue
        wanted = host.replace("*", "any", 1)
        if any(certificate.covers(wanted) for certificate in certificates):
            yield Finding("ok", f"host {host}", "covered by a certificate")
        else:
            yield Finding(
                "error", f"host {host}", "no certificate covers it: clients will refuse",
                "add one under [tls] certificates",
            )  # fmt: skip


def _origin(name: str, url: str) -> Finding:
    subject = f"upstream {name} {url}"
    try:
        address = parse_server(url)
        if address.unix is not None:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_TIMEOUT)
                probe.connect(address.unix)
        else:
            socket.create_connection((address.host, address.port), CONNECT_TIMEOUT).close()
    except socket.gaierror as error:
        return Finding("warning", subject, f"no address: {error.strerror}", "check the name")
    except OSError as error:
        return Finding(
            "warning", subject, f"does not answer: {error.strerror or error}", "start it"
        )
    return Finding("ok", subject, "accepts connections")


def _root(name: str, root: str) -> Finding:
    subject = f"upstream {name} {root}"
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return Finding("error", subject, str(error.strerror), "make it, or name another root")
    return Finding("ok", subject, "a directory that can be read")


def _identity(config: Config) -> Finding:
    try:
        identity = identity_of(config.user, config.group)
    except PrivilegeError as error:
        return Finding("error", "workers", str(error))
    if identity is None and os.geteuid() == 0:
        return Finding(
            "warning", "workers", "run as root, and it is they that strangers speak to",
            'user = "quicedge", once that user exists',
        )  # fmt: skip
    uid = os.geteuid() if identity is None else identity.uid
    return Finding("ok", "workers", f"run as user {uid}, without capabilities")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MIN_DESCRIPTORS
    if soft < wanted:
        return Finding(
            "warning", "open files", f"the limit is {soft}: origins may become unreachable",
            f"ulimit -n {min(hard, wanted) if hard > 0 else wanted}, or LimitNOFILE= in systemd",
        )  # fmt: skip
    return Finding("ok", "open files", f"the limit is {soft}")
