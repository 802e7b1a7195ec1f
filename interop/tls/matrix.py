"""Every stack in every case, and the table of what came of it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interop.runner.certs import write_certificates
from interop.tls.server import FILE, Facts, recording_edge
from interop.tls.stacks import Stack

CLIENT_TIMEOUT = 40.0
UNSUPPORTED = 127
RETRY_GROUP = "secp384r1"
"""All stacks know it, and few send a key share of it before they are asked."""


@dataclass(frozen=True)
class Case:
    """A client's test case against an edge."""

    testcase: str
    rsa: bool = False
    groups: tuple[str, ...] | None = None


CASES = {
    "ecdsa": Case("handshake"),
    "rsa": Case("handshake", rsa=True),
    "retry": Case("handshake", groups=(RETRY_GROUP,)),
    "resumption": Case("resumption"),
    "zerortt": Case("zerortt"),
}


@dataclass(frozen=True)
class Outcome:
    """What a stack made of a case."""

    code: int | None
    """Its exit code; None: it did not end."""
    facts: list[Facts]
    output: str = ""

    @property
    def is_supported(self) -> bool:
        return self.code != UNSUPPORTED

    @property
    def last(self) -> Facts | None:
        """The facts of its last handshake, if all went well."""
        return self.facts[-1] if self.code == 0 and self.facts else None


async def run_case(stack: Stack, case: Case, directory: Path) -> Outcome:
    """Run a client against an edge of its own; `directory` is empty."""
    certs, www = directory / "certs", directory / "www"
    write_certificates(certs, extra=("localhost",), rsa=case.rsa)
    www.mkdir()
    (www / FILE).write_text(FILE)
    groups = None if case.groups is None else list(case.groups)
    async with recording_edge(certs, www, groups) as (edge, port):
        url = f"https://localhost:{port}/{FILE}"
        downloads = directory / "downloads"
        downloads.mkdir()
        environment = {
            **os.environ, "ROLE": "client", "TESTCASE": case.testcase, "REQUESTS": f"{url} {url}",
            "PORT": str(port), "CERTS": str(certs), "DOWNLOADS": str(downloads), "ALPN": "h3",
            "QLOGDIR": str(directory / "qlog"), "HOME": str(directory), **stack.env,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *stack.command, env=environment, cwd=directory,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), CLIENT_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()
            return Outcome(None, edge.facts)
        return Outcome(process.returncode, edge.facts, output.decode(errors="replace"))


async def run_stack(stack: Stack) -> dict[str, Outcome]:
    """What a stack makes of every case."""
    found = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            found[name] = await run_case(stack, case, Path(directory))
    return found


HEAD = (
    "| client | TLS | over | group | cipher suite | signature: ECDSA, RSA certificate "
    f"| HelloRetryRequest for {RETRY_GROUP} | certificate | resumption | 0-RTT |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(stack: Stack, found: dict[str, Outcome]) -> str:
    """A stack's row of the table."""
    first, rsa = found["ecdsa"].last, found["rsa"].last
    retried = found["retry"].last
    cells = [
        f"{stack.name} {stack.version}",
        stack.library,
        stack.transport,
        _text(first and first.group),
        _text(first and first.cipher),
        ", ".join(_text(facts and facts.signature) for facts in (first, rsa)),
        # A client that sends a share of it at once needs no request.
        "✕" if retried is None else "✓" if retried.hello_retry else "share sent at once",
        _text(first and first.compression).replace("none", "not compressed"),
        _mark(found["resumption"], resumed=True),
        _mark(found["zerortt"], resumed=True, early_data=True),
    ]
    return f"| {' | '.join(cells)} |"


def _text(value: str | None) -> str:
    return value or "?"


def _mark(outcome: Outcome, *, resumed: bool, early_data: bool = False) -> str:
    if not outcome.is_supported:
        return "not tried"
    last = outcome.last
    done = last is not None and last.resumed is resumed and last.early_data >= early_data
    return "✓" if done else "✕"


def table(rows: Iterable[str]) -> str:
    return "\n".join((HEAD, *rows)) + "\n"
