"""Hashes of passwords in configurations and files of users."""

from __future__ import annotations

import re

from quicedge.config.filterlimits import PASSWORD_MAX_ROUNDS

_BCRYPT = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


def bcrypt_problem(hashed: bytes) -> str | None:
    """Describe why a hash is not accepted; None if it is."""
    match = _BCRYPT.fullmatch(hashed)
    if match is None:
        return "is no bcrypt hash; create one with `htpasswd -nB USER`"
    if int(match[1]) > PASSWORD_MAX_ROUNDS:
        return f"has a cost of {int(match[1])}; the maximum is {PASSWORD_MAX_ROUNDS}"
    return None
