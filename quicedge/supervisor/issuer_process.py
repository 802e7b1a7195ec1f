"""Runs `quicedge.acme` for one task with one issuer, and answers what it asks for."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

import quicedge
from quicedge.acme.failure import Cause, Failure
from quicedge.acme.wire import (
    LINE_MAX,
    Account,
    Failed,
    Issued,
    Job,
    Message,
    Prove,
    Proved,
    Registered,
    Suggested,
    line,
)
from quicedge.config.acmelimits import ORDER_TIMEOUT

log = structlog.get_logger(__name__)

_decoder = msgspec.json.Decoder(Message)
_STDERR_SHOWN = 300


class IssuerError(Exception):
    """A task failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class IssuerProcess:
    """One task. `prove` puts proofs in place, and returns an error in words if it cannot;
    `registered` stores an account."""

    def __init__(
        self,
        *,
        prove: Callable[[Prove], Awaitable[str | None]],
        registered: Callable[[Account], Awaitable[None]],
    ) -> None:
        self._prove = prove
        self._registered = registered
        self._issued: str | None = None
        self._suggestions: list[Suggested] = []

    async def order(self, job: Job) -> bytes:
        """The chain that was issued, in PEM; raises IssuerError."""
        await self._run(job)
        if self._issued is None:
            raise IssuerError(_internal("the process ended without a certificate"))
        return self._issued.encode()

    async def ask(self, job: Job) -> list[Suggested]:
        """When to renew certificates; raises IssuerError."""
        await self._run(job)
        return self._suggestions

    async def _run(self, job: Job) -> None:
        try:
            process = await self._start()
        except OSError as error:
            raise IssuerError(_internal(f"cannot start a process: {error.strerror}")) from error
        try:
            async with asyncio.timeout(ORDER_TIMEOUT):
                await self._converse(process, job)
        except TimeoutError:
            message = f"no result within {ORDER_TIMEOUT:g} s"
            raise IssuerError(Failure(cause=Cause.UNAVAILABLE, message=message)) from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        parent = str(Path(quicedge.__file__).parents[1])
        path = os.pathsep.join(filter(None, (parent, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        environment.pop("NOTIFY_SOCKET", None)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "quicedge.acme",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_MAX,
            env=environment,
            process_group=0,
        )  # fmt: skip

    async def _converse(self, process: asyncio.subprocess.Process, job: Job) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(_tail(process.stderr))
        try:
            process.stdin.write(line(job))
            while text := await process.stdout.readline():
                answer = await self._handle(_decoder.decode(text))
                if answer is not None:
                    process.stdin.write(line(answer))
            code = await process.wait()
            if code:
                said = (await errors).decode(errors="replace").strip().rpartition("\n")[2]
                raise IssuerError(_internal(f"the process ended with {code}: {said}"))
        except (ValueError, OSError) as error:
            raise IssuerError(_internal(f"the process cannot be understood: {error}")) from error
        finally:
            errors.cancel()

    async def _handle(self, message: Message) -> Proved | None:
        match message:
            case Registered():
                await self._registered(message.account)
            case Prove():
                return Proved(error=await self._prove(message))
            case Issued():
                self._issued = message.chain_pem
            case Suggested():
                self._suggestions.append(message)
            case Failed():
                raise IssuerError(message.failure)
        return None


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """The last of what a process says, however much it is."""
    tail = b""
    while data := await stream.read(4096):
        tail = (tail + data)[-_STDERR_SHOWN:]
    return tail


def _internal(message: str) -> Failure:
    return Failure(cause=Cause.INTERNAL, message=message)
