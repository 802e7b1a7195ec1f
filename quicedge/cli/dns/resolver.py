"""HTTPS records of names, asked of the system's resolvers over UDP within a bounded time."""

from __future__ import annotations

import re
import secrets
import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeAlias

from quicedge.cli.dns.message import (
    DnsError,
    HttpsRecord,
    answers,
    encode_query,
    parse_response,
)
from quicedge.config.addresses import DNS_PORT
from quicedge.config.host_port import HostPort
from quicedge.config.limits import DNS_DEADLINE, DNS_MAX_RESPONSE, DNS_TRIES

Answer: TypeAlias = list[HttpsRecord] | DnsError

_NAMESERVER = re.compile(r"^[ \t]*nameserver[ \t]+([0-9A-Fa-f.:]+)", re.MULTILINE)


def system_resolvers(file: Path = Path("/etc/resolv.conf")) -> list[HostPort]:
    """The resolvers of this machine (resolv.conf(5): three at most are used)."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return []
    found = [HostPort(address, DNS_PORT) for address in _NAMESERVER.findall(text)]
    return [each for each in found if each.ip is not None][:3]


def look_up(names: Iterable[str], resolvers: Sequence[HostPort]) -> dict[str, Answer]:
    """The HTTPS records of each name, or why they are not known.

    What is unanswered is asked again a few times, of the next resolver if there is one.
    """
    found: dict[str, Answer] = {}
    queries: dict[bytes, tuple[str, bytes]] = {}
    for name in names:
        number = secrets.token_bytes(2)
        while number in queries:
            number = secrets.token_bytes(2)
        try:
            queries[number] = (name, encode_query(int.from_bytes(number, "big"), name))
        except DnsError as error:
            found[name] = error
    with ExitStack() as stack:
        sockets = [_connect(each, stack) for each in resolvers]
        open_sockets = [each for each in sockets if each is not None]
        deadline = time.monotonic()
        for attempt in range(DNS_TRIES if open_sockets else 0):
            asked = open_sockets[attempt % len(open_sockets)]
            for _, query in queries.values():
                with suppress(OSError):
                    asked.send(query)
            deadline += DNS_DEADLINE / DNS_TRIES
            _receive(open_sockets, queries, found, deadline)
    silence = DnsError("no resolver answers" if resolvers else "this machine has no resolver")
    for name, _ in queries.values():
        found[name] = silence
    return found


def _connect(resolver: HostPort, stack: ExitStack) -> socket.socket | None:
    """A socket on a random port that takes datagrams of the resolver alone."""
    family = socket.AF_INET6 if ":" in resolver.host else socket.AF_INET
    connection = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    connection.setblocking(False)
    try:
        connection.connect(resolver)
    except OSError:
        return None
    return connection


def _receive(
    sockets: list[socket.socket],
    queries: dict[bytes, tuple[str, bytes]],
    found: dict[str, Answer],
    deadline: float,
) -> None:
    """Take responses until all queries are answered, or the time is up."""
    while queries and (left := deadline - time.monotonic()) > 0:
        for ready in select.select(sockets, [], [], left)[0]:
            try:
                data = ready.recv(DNS_MAX_RESPONSE)
            except OSError:  # such as ECONNREFUSED, of an ICMP message
                continue
            asked = queries.get(data[:2])
            if asked is None or not answers(data, asked[1]):
                continue
            del queries[data[:2]]
            try:
                found[asked[0]] = parse_response(data)
            except DnsError as error:
                found[asked[0]] = error
