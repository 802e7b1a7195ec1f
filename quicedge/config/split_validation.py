"""Semantic validation of the shares of a route's upstreams."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from quicedge.config.limits import SPLIT_GROUPS, SPLIT_SIDES
from quicedge.config.problems import Problem, nearest
from quicedge.config.schema import Split, SplitBy

COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_BY = re.compile(r"client|path|target|request|(?:header|cookie):" + COOKIE_NAME.pattern)


def split_problems(where: str, split: Split, upstreams: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with a split, of which `upstreams` are known."""
    total = sum(split.shares.values())
    for name, weight in split.shares.items():
        if name not in upstreams:
            near = nearest(name, upstreams)
            yield Problem(f"{where}.shares.{name}", f"unknown upstream {name!r}{near}")
        elif weight and weight * SPLIT_GROUPS < total:
            least = 100 / SPLIT_GROUPS
            yield Problem(f"{where}.shares.{name}", f"is less than {least:g} % of the whole")
    if len(split.shares) < 2:
        reason = "must name two upstreams or more; for one, use the key upstream of the route"
        yield Problem(f"{where}.shares", reason)
    elif len(split.shares) > SPLIT_SIDES:
        yield Problem(f"{where}.shares", f"names more than {SPLIT_SIDES} upstreams")
    elif not total:
        yield Problem(f"{where}.shares", "must not all be 0")
    if not _BY.fullmatch(split.key):
        expected = "client, path, target, header:NAME, cookie:NAME or request"
        yield Problem(f"{where}.by", f"{split.by!r} is not {expected}")
    cookie = split.sticky_cookie
    if cookie is not None and not COOKIE_NAME.fullmatch(cookie):
        yield Problem(f"{where}.sticky_cookie", f"{cookie!r} is not the name of a cookie")
    elif cookie is not None and split.by == f"{SplitBy.COOKIE}:{cookie}":
        yield Problem(f"{where}.by", "has no effect: sticky_cookie is the same cookie")
    if split.seed and split.key == SplitBy.REQUEST:
        yield Problem(f"{where}.seed", 'has no effect with by = "request"')
