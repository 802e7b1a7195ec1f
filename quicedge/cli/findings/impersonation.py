"""Run checks as the user that workers run as: root's own access proves nothing about theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import msgspec

from quicedge.cli.findings.finding import Finding, Level
from quicedge.worker.privileges import Identity, drop_privileges

Check = Callable[[], Iterable[Finding]]


def run_as(identity: Identity | None, check: Check) -> list[Finding]:
    """Run `check` in a child process that runs as `identity`; with None, in this process."""
    if identity is None:
        return list(check())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(writer, identity, check)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not data:
        code = os.waitstatus_to_exitcode(status)
        return [
            Finding(
                Level.ERROR,
                "workers",
                f"the check as user {identity.uid} failed (exit code {code})",
            )
        ]
    return msgspec.json.decode(data, type=list[Finding])


def _answer(writer: int, identity: Identity, check: Check) -> None:
    """The child process; never returns into the parent's code."""
    code = 1
    try:
        drop_privileges(identity)
        with os.fdopen(writer, "wb") as answer:
            answer.write(msgspec.json.encode(list(check())))
        code = 0
    finally:
        os._exit(code)
