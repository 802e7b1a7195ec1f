"""Contradictions in the `[fleet]` section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.config.listeners import listeners
from quicedge.config.problems import Problem
from quicedge.config.schema import Config
from quicedge.config.server_ids import server_id_length, server_id_problem


def fleet_problems(config: Config, written: Mapping[str, Any]) -> Iterator[Problem]:
    """`written`: the section as it stands in the file."""
    fleet = config.fleet
    keys = config.tls.shared_keys
    if keys is not None and "://" in keys:
        yield from redis_problems("tls.shared_keys", keys)
        if fleet.secret_file is None:
            yield Problem(
                "tls.shared_keys", "in Redis requires fleet.secret_file, which encrypts them"
            )
    if fleet.server_id is None:
        for key in written:
            yield Problem(f"fleet.{key}", "has no effect without server_id")
        return
    if problem := server_id_problem(fleet.server_id):
        yield Problem("fleet.server_id", f"{fleet.server_id!r} {problem}")
    elif (length := server_id_length(fleet.server_id)) is not None:
        longest = limits.FLEET_NONCE + limits.FLEET_MAX_SERVER_ID - length
        if fleet.nonce_length > longest:
            yield Problem(
                "fleet.nonce_length",
                f"{fleet.nonce_length} is too large: with a server ID of {length} bytes the "
                f"maximum is {longest}",
            )
    if not any(item.quic for item in listeners(config)):
        yield Problem("fleet.server_id", "has no effect: no address speaks h3")
    if fleet.connection_id_keys is not None and "config_rotation" in written:
        yield Problem("fleet.config_rotation", "has no effect with connection_id_keys")
    if fleet.peers and fleet.secret_file is None:
        yield Problem("fleet.peers", "requires secret_file, which authenticates hosts")
    for index, text in enumerate(fleet.peers):
        try:
            peer = HostPort.parse(text)
        except ValueError as error:
            yield Problem(f"fleet.peers[{index}]", str(error))
            continue
        if not peer.port or not peer.host:
            yield Problem(f"fleet.peers[{index}]", f"{text!r} is not host:port")


def redis_problems(key: str, url: str) -> Iterator[Problem]:
    """What is wrong with a URL of Redis, which may contain a password."""
    if not re.match(r"rediss?://[^/]", url):
        yield Problem(key, "is not redis://host:port or rediss://host:port")
        return
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        yield Problem(key, f"{url!r} is not redis://host:port/NUMBER")
