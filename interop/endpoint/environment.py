"""What the QUIC interop runner tells an endpoint, in its environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

UNSUPPORTED = 127
"""Exit code for an unknown case; the runner tries one to check it."""

CASES = frozenset(
    (
        "handshake", "transfer", "chacha20", "retry", "resumption", "zerortt", "http3",
        "multiconnect", "v2", "ecn", "keyupdate", "connectionmigration", "versionnegotiation",
    )
)  # fmt: skip
"""TESTCASE values; the other cases differ in the link alone."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that `docs/interop.md` lists."""

    case: str
    port: int
    www: Path
    downloads: Path
    certs: Path
    requests: tuple[str, ...]
    alpn: str | None

    @classmethod
    def read(cls) -> Self:
        """Read the process's environment; an unknown case ends the process with exit code 127."""
        environment = os.environ.get
        case = environment("TESTCASE") or ""
        if case not in CASES:
            sys.exit(UNSUPPORTED)
        return cls(
            case=case,
            # The runner's compose file sets what it does not use to the empty string.
            port=int(environment("PORT") or 443),
            www=Path(environment("WWW") or "/www"),
            downloads=Path(environment("DOWNLOADS") or "/downloads"),
            certs=Path(environment("CERTS") or "/certs"),
            requests=tuple((environment("REQUESTS") or "").split()),
            alpn=environment("ALPN") or None,
        )
