"""DNS-01 by an operator's command, which adds and removes TXT records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from quicedge.acme.challenge import Proof
from quicedge.config.acmelimits import DNS_COMMAND_TIMEOUT

log = structlog.get_logger(__name__)

_SHOWN = 300


class DnsCommand:
    """Runs `COMMAND add NAME VALUE` and `COMMAND remove NAME VALUE`, one at a time per call.

    The command returns once the record is published; another exit code than 0 is a failure, of
    which the last line that it printed says more.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    async def add(self, proofs: Iterable[Proof]) -> str | None:
        """None, or why a record could not be added."""
        for proof in proofs:
            error = await self._run("add", proof)
            if error is not None:
                return error
        return None

    async def remove(self, proofs: Iterable[Proof]) -> None:
        """Failures are logged: the certificate does not depend on them."""
        for proof in proofs:
            error = await self._run("remove", proof)
            if error is not None:
                log.warning("DNS record not removed", name=proof.record_name, error=error)

    async def _run(self, action: str, proof: Proof) -> str | None:
        command = [*self._command, action, proof.record_name, proof.record_value]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            return f"tls.acme.dns_command: {self._command[0]}: {error.strerror}"
        try:
            async with asyncio.timeout(DNS_COMMAND_TIMEOUT):
                said = await _tail(process)
                code = await process.wait()
        except TimeoutError:
            return f"tls.acme.dns_command: not done within {DNS_COMMAND_TIMEOUT:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return f"tls.acme.dns_command {action} ended with {code}: {said}" if code else None


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The last line of what the command prints."""
    assert process.stdout is not None
    tail = b""
    while data := await process.stdout.read(4096):
        tail = (tail + data)[-_SHOWN:]
    text = tail.decode(errors="replace").strip().rpartition("\n")[2]
    return "".join(c if c.isprintable() else " " for c in text)
