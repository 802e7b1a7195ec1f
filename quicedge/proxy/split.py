"""Shares of a route's traffic between several upstreams.

Clients fall into SPLIT_GROUPS groups, by a hash or by a cookie, and each upstream has as many of
them as its share. Who owns a group follows from the shares alone: all workers and all hosts of a
fleet agree, and a restart changes nothing. When the shares of two upstreams change, no more groups
move than they must. With more upstreams little more move: each takes its groups in an order of its
own, wherever the shares of the others end.

Requests that nobody remembers take turns, which are exact: of SPLIT_GROUPS requests in a row each
upstream has its share.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

from quicedge.config.limits import SPLIT_GROUPS, SPLIT_STEP, SPLITS_REMEMBERED
from quicedge.config.schema import Split as SplitConfig
from quicedge.config.schema import SplitBy
from quicedge.http.cookies import cookies
from quicedge.http.message import Request, Response
from quicedge.http.request_key import request_key
from quicedge.proxy.choice import Choice
from quicedge.proxy.client import ClientInfo, host_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter
from quicedge.shares.prefixes import packed


class Split:
    """Chooses the upstreams of one route's requests. `draw` returns random numbers below 1."""

    def __init__(self, settings: SplitConfig, draw: Callable[[], float] = random.random) -> None:
        names = tuple(settings.shares)
        counts = shares_in_groups(tuple(settings.shares.values()))
        self._choices = tuple(Choice(name) for name in names)
        self._owners = owners_of_groups(names, counts)
        self._ends = tuple(accumulate(counts))
        self._draw = draw
        self._turn = int(draw() * SPLIT_GROUPS)
        self._key: Callable[[Request, ClientInfo], bytes] | None = None
        """None: every request on its own."""
        if settings.key != SplitBy.REQUEST:
            self._key = request_key(settings.key, _address)
        self._hash = hashlib.blake2b(settings.seed.encode() + b"\0", digest_size=8)
        cookie = settings.sticky_cookie
        self._cookie = None if cookie is None else cookie.encode()

    def choose(self, request: Request, client: ClientInfo) -> Choice:
        """The upstream for a request."""
        if self._cookie is not None:
            group = group_in(request, self._cookie)
            if group is not None:
                return self._choices[self._owners[group]]
        if self._key is not None:
            group = self._hashed(self._key(request, client))
            side = self._owners[group]
        else:
            side = self._next_side()
            group = None if self._cookie is None else self._group_of(side)
        choice = self._choices[side]
        return choice if self._cookie is None else Choice(choice.upstream, group)

    def expected(self, request: Request, client: ClientInfo) -> str | None:
        """The upstream for a request; None: that is not decided by what is known of it."""
        group = None if self._cookie is None else group_in(request, self._cookie)
        if group is None and self._key is not None and (key := self._key(request, client)):
            group = self._hashed(key)
        return None if group is None else self._choices[self._owners[group]].upstream

    def _next_side(self) -> int:
        self._turn = (self._turn + SPLIT_STEP) % SPLIT_GROUPS
        return bisect_right(self._ends, self._turn)

    def _group_of(self, side: int) -> int:
        """Any of the groups of a side that has some."""
        owners, group = self._owners, int(self._draw() * SPLIT_GROUPS)
        while owners[group] != side:
            group = (group + SPLIT_STEP) % SPLIT_GROUPS
        return group

    def _hashed(self, key: bytes) -> int:
        seeded = self._hash.copy()
        seeded.update(key)
        return int.from_bytes(seeded.digest()) % SPLIT_GROUPS


class KeepSide(Filter):
    """Gives clients a session cookie with their group."""

    def __init__(self, cookie: str) -> None:
        self._start = cookie.encode() + b"="

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        choice = exchange.choice
        if choice is not None and choice.group is not None:
            attributes = b"%04d; Path=/; Secure; HttpOnly; SameSite=Lax" % choice.group
            response.fields.append((b"set-cookie", self._start + attributes))
        return response


def group_in(request: Request, name: bytes) -> int | None:
    """The group in the first cookie of that name that holds one."""
    for key, value in cookies(request.fields):
        if key == name and len(value) == 4 and value.isdigit():
            return int(value)
    return None


# --- who owns what --------------------------------------------------------------------------------


def shares_in_groups(weights: Sequence[float]) -> tuple[int, ...]:
    """How many of the groups each weight is entitled to; the largest remainders are rounded up."""
    total = sum(weights)
    exact = [SPLIT_GROUPS * weight / total for weight in weights]
    counts = [int(share) for share in exact]
    missing = SPLIT_GROUPS - sum(counts)
    by_remainder = sorted(range(len(counts)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[:missing]:
        counts[index] += 1
    return tuple(counts)


@lru_cache(maxsize=SPLITS_REMEMBERED)
def owners_of_groups(names: tuple[str, ...], counts: tuple[int, ...]) -> bytes:
    """The index of the owner of each group.

    The first owns what the others leave. Each of the others goes through the groups in an order of
    its own, which follows from its name, and takes what nobody before it has taken.
    """
    owners = bytearray(SPLIT_GROUPS)
    for index in range(1, len(names)):
        group, step = _order(names[index])
        missing = counts[index]
        while missing:
            if not owners[group]:
                owners[group] = index
                missing -= 1
            group = (group + step) % SPLIT_GROUPS
    return bytes(owners)


def _order(name: str) -> tuple[int, int]:
    """The first group of an upstream, and the step to its next one: prime to SPLIT_GROUPS, so that
    it comes to all."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    first, number = number % SPLIT_GROUPS, number // SPLIT_GROUPS
    step = 1 + 2 * (number % (SPLIT_GROUPS // 2))
    return first, step if step % 5 else step + 2


def _address(client: ClientInfo) -> bytes:
    return packed(host_of(client))
