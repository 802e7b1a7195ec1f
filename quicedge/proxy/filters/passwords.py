"""Passwords of users, checked off the event loop."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from quicedge.config.filterlimits import (
    HTPASSWD_MAX_SIZE,
    PASSWORD_MAX_LENGTH,
    PASSWORDS_CHECKED,
    PASSWORDS_REMEMBERED,
    PASSWORDS_WAITING,
)
from quicedge.config.passwords import bcrypt_problem
from quicedge.shares import Client, Pool

_BCRYPT_BYTES = 72
"""What bcrypt looks at of a password."""


class TooManyWaiting(Exception):
    """More passwords wait to be checked than the client may have."""


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads of this worker that check passwords; bcrypt works without the GIL."""
    return ThreadPoolExecutor(PASSWORDS_CHECKED, "passwords")


@cache
def _waiting() -> Pool:
    return Pool(PASSWORDS_WAITING)


def read_htpasswd(path: str) -> dict[bytes, bytes]:
    """Users and their hashes (`htpasswd -B`); ValueError names the line, OSError the file."""
    with open(path, "rb") as file:
        text = file.read(HTPASSWD_MAX_SIZE + 1)
    if len(text) > HTPASSWD_MAX_SIZE:
        raise ValueError(f"{path} has more than {HTPASSWD_MAX_SIZE} bytes")
    users: dict[bytes, bytes] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        name, mark, rest = line.partition(b":")
        hashed = rest.partition(b":")[0]
        if not mark or not name:
            raise ValueError(f"{path}:{number}: is not USER:HASH")
        if problem := bcrypt_problem(hashed):
            raise ValueError(f"{path}:{number}: {problem}")
        users[name] = hashed
    return users


class Passwords:
    """Users with bcrypt hashes.

    Credentials that were right are remembered by a keyed digest, so that one hash is computed per
    user and worker, not per request. Unknown users cost the same time as known ones.
    """

    def __init__(self, users: Mapping[bytes, bytes]) -> None:
        self._users = dict(users)
        # Of the same cost as others: whether a user exists must not show in the time it takes.
        self._nobody = next(iter(self._users.values()), None)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def is_known(self, user: bytes, password: bytes) -> bool:
        """Whether these credentials were right before."""
        digest = self._digest(user, password)
        if digest not in self._right:
            return False
        self._right.move_to_end(digest)
        return True

    async def check(self, user: bytes, password: bytes, client: Client) -> bool:
        """Whether a password is right; raises TooManyWaiting."""
        waiting = _waiting()
        if not waiting.may_take(client):
            raise TooManyWaiting
        hashed = self._users.get(user)
        against = hashed or self._nobody
        if against is None or len(password) > PASSWORD_MAX_LENGTH:
            return False
        loop = asyncio.get_running_loop()
        waiting.take(client)
        try:
            matches = await loop.run_in_executor(_threads(), _matches, password, against)
        finally:
            waiting.give_back(client)
        if not matches or hashed is None:
            return False
        self._right[self._digest(user, password)] = None
        if len(self._right) > PASSWORDS_REMEMBERED:
            self._right.popitem(last=False)
        return True

    def _digest(self, user: bytes, password: bytes) -> bytes:
        return hmac.digest(self._key, b"%d:%b%b" % (len(user), user, password), "sha256")


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    if b"\0" in password:
        return False  # bcrypt would stop there
    return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)
