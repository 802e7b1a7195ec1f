"""What the QUIC interop runner tells an endpoint, by its environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

UNSUPPORTED = 127
"""Exit code for a case that is not known; the runner asks for one to see that it is so."""

CASES = frozenset(
    (
        "handshake", "transfer", "chacha20", "retry", "resumption", "zerortt", "http3",
        "multiconnect", "v2", "ecn", "keyupdate", "connectionmigration", "versionnegotiation",
    )
)  # fmt: skip
"""TESTCASE values; the other cases differ by the link alone."""


@dataclass(frozen=True, slots=True)
class Environment:
    """See `docs/interop.md`, "What an endpoint is given"."""

    case: str
    port: int
    www: Path
    downloads: Path
    certs: Path
    requests: tuple[str, ...]
    alpn: str | None

    @classmethod
    def read(cls) -> Self:
        """Read it; exits with 127 when the case is not known, before anything else."""
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
