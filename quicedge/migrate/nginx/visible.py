"""Where differences between nginx and quicedge can be seen, in short."""

from __future__ import annotations

from quicedge.migrate.effects import Aspect, Effect, Side

STATUS = Effect(Side.CLIENT, Aspect.STATUS)
"""Of the response, with its content."""
BODY = Effect(Side.CLIENT, Aspect.BODY)
ERROR_FIELDS = Effect(Side.CLIENT, Aspect.HEADER, "error")
"""All fields of error responses."""
SCHEME = Effect(Side.CLIENT, Aspect.SCHEME)
REACHED = Effect(Side.ORIGIN, Aspect.REACHED)
TARGET = Effect(Side.ORIGIN, Aspect.TARGET)
ENCODING = Effect(Side.ORIGIN, Aspect.TARGET, "encoding")
"""Of the target: percent-encoding, repeated slashes and dot segments alone."""
HOST = Effect(Side.ORIGIN, Aspect.HOST)
METHOD = Effect(Side.ORIGIN, Aspect.METHOD)
SERVER = Effect(Side.ORIGIN, Aspect.SERVER)
CONTENT = Effect(Side.ORIGIN, Aspect.BODY)
"""Of the request."""

ANSWER = (STATUS, REACHED)
"""The request is answered differently, perhaps by somebody else."""


ELSEWHERE = (
    *ANSWER, SERVER, HOST, TARGET, BODY,
    Effect(Side.CLIENT, Aspect.HEADER), Effect(Side.ORIGIN, Aspect.HEADER),
)  # fmt: skip
"""Another server or location is what the request goes to, with all that is configured there."""


def status(before: int | str = "", after: int | str = "") -> Effect:
    """One status in place of another; empty: any."""
    return Effect(Side.CLIENT, Aspect.STATUS, f"{before}->{after}")


def client(*names: str) -> tuple[Effect, ...]:
    """Fields of responses."""
    return tuple(Effect(Side.CLIENT, Aspect.HEADER, name.lower()) for name in names)


def errors(*names: str) -> tuple[Effect, ...]:
    """Fields of error responses."""
    return tuple(Effect(Side.CLIENT, Aspect.HEADER, f"error {name.lower()}") for name in names)


def origin(*names: str) -> tuple[Effect, ...]:
    """Fields of requests to origins."""
    return tuple(Effect(Side.ORIGIN, Aspect.HEADER, name.lower()) for name in names)
