"""`quicedge demo`: the edge in front of an embedded origin, and a first request through it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import uvloop

from quicedge.cli.client import Answer, Client, FetchError
from quicedge.cli.get import show_answer
from quicedge.cli.options import development_listen, with_certificate
from quicedge.cli.origin import DemoOrigin
from quicedge.config.loader import config_from_options

ADMIN_PORT = 4480
START_TIMEOUT = 30.0
"""Seconds that the edge may take to answer its first request."""


@click.command()
@click.option("--once", is_flag=True, help="Make the request and exit, with 0 on success.")
@click.option("--port", default=4433, show_default=True, type=click.IntRange(1, 65535),
              help="Port of the edge, UDP and TCP.")  # fmt: skip
def command(once: bool, port: int) -> None:
    """Run the edge with an embedded origin and a development certificate; show a first request."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The edge runs in a session of its own; unwind to stop it.
        signal.signal(number, lambda *_: sys.exit(0))
    admin = _admin_port()
    with embedded_origin() as origin, _edge(origin, port, admin) as edge:
        try:
            files = with_certificate(config_from_options(origin))[1]
            assert files is not None
            answer, client = uvloop.run(_first_request(port, str(files.ca), edge))
        except FetchError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"\nGET https://localhost:{port}/ through the edge:\n", err=True)
        show_answer(client, answer)
        if answer.status != 200:
            sys.exit(1)
        if once:
            return
        program = "quicedge" if shutil.which("quicedge") else sys.argv[0]
        if program.endswith(".py"):
            program = f"{sys.executable} -m quicedge"
        click.echo(_NEXT.format(program=program, port=port, ca=files.ca, admin=admin))
        try:
            edge.wait()
        except KeyboardInterrupt:
            click.echo("", err=True)


_NEXT = """
The edge listens on UDP and TCP {port}; its dashboard is http://127.0.0.1:{admin}/
Try, in another terminal:

  curl --cacert {ca} https://localhost:{port}/
  {program} get -v --cacert {ca} https://localhost:{port}/echo
  {program} get --cacert {ca} -o /dev/null 'https://localhost:{port}/download?size=100MB'
  {program} top --admin 127.0.0.1:{admin}

Press Ctrl-C to stop.
"""


@contextmanager
def embedded_origin() -> Iterator[str]:
    """Run the embedded origin in a thread; yields its URL."""
    ready = threading.Event()
    stop: list[asyncio.Event] = []
    loops: list[asyncio.AbstractEventLoop] = []
    origin = DemoOrigin()

    async def serve() -> None:
        stop.append(asyncio.Event())
        loops.append(asyncio.get_running_loop())
        await origin.start()
        ready.set()
        await stop[0].wait()
        await origin.close()

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    if not ready.wait(START_TIMEOUT):
        raise click.ClickException("the embedded origin failed to start")
    try:
        yield origin.url
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(5)


def _admin_port() -> int:
    """The default port of the admin API, or a free one if it is in use."""
    for port in (ADMIN_PORT, 0):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise click.ClickException("no free TCP port on 127.0.0.1")


@contextmanager
def _edge(origin: str, port: int, admin: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `quicedge serve` as an operator would."""
    edge = subprocess.Popen(
        [
            sys.executable, "-m", "quicedge", "serve", "--upstream", origin,
            *(f"--listen={address}" for address in development_listen(port)),
            "--admin", f"127.0.0.1:{admin}",
        ],
        # Ctrl-C is for this process, which stops the edge.
        start_new_session=True,
        env=os.environ,
    )  # fmt: skip
    try:
        yield edge
    finally:
        if edge.poll() is None:
            edge.send_signal(signal.SIGTERM)
            edge.wait()


async def _first_request(
    port: int, ca: str, edge: subprocess.Popen[bytes]
) -> tuple[Answer, Client]:
    """Retry until the edge answers; raises FetchError when it has exited or times out."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT
    while True:
        try:
            # The first handshake waits for the edge to start; the second one is measured.
            await (await Client.connect("localhost", port, ca_file=ca, timeout=2)).close()
            client = await Client.connect("localhost", port, ca_file=ca, timeout=2)
            answer = await client.fetch("GET", f"localhost:{port}", "/")
            await client.close()
            return answer, client
        except FetchError:
            if edge.poll() is not None:
                raise FetchError(f"the edge exited with code {edge.returncode}") from None
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.1)
