"""`quicedge get`: fetch a URL over HTTP/3, and see how it travelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import click
import uvloop
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from quicedge.cli.client import Answer, Client, FetchError
from quicedge.http.message import Field
from quicedge.quic.packet import VERSION_NAMES
from quicedge.telemetry.text import escape, text


@click.command()
@click.argument("url")
@click.option("-v", "--verbose", is_flag=True, help="Show fields, timings and the transport.")
@click.option("-d", "--data", help="Send this as the request body (POST); @FILE reads a file.")
@click.option("-X", "--request", "method", help="Method; GET, or POST with -d.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE")
@click.option("-o", "--output", metavar="FILE", help="Write the body to a file.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the certificate.")
@click.option(
    "--cacert",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="CA to trust (PEM).",
)
@click.option("--connect-timeout", default=10.0, show_default=True, help="Seconds.")
@click.option("-m", "--max-time", default=300.0, show_default=True, help="Seconds.")
def command(
    url: str,
    verbose: bool,
    data: str | None,
    method: str | None,
    headers: tuple[str, ...],
    output: str | None,
    insecure: bool,
    cacert: str | None,
    connect_timeout: float,
    max_time: float,
) -> None:
    """Fetch URL over HTTP/3; the body goes to standard output."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port or 443
    except ValueError as error:
        raise click.UsageError(f"{url!r} is no https URL: {error}") from error
    if parts.scheme != "https" or not parts.hostname:
        raise click.UsageError(f"{url!r} is no https URL")
    body = b""
    if data is not None:
        body = _file(data[1:]) if data.startswith("@") else data.encode()
    fields = [_header(line) for line in headers]
    with ExitStack() as stack:
        sink = sys.stdout.buffer
        if output is not None:
            try:
                sink = stack.enter_context(open(output, "wb"))
            except OSError as error:
                raise click.UsageError(f"-o {output}: {error.strerror}") from error
        write = _progress(stack, sink) if output and sys.stderr.isatty() else _writer(sink)
        request = _Request(
            parts.hostname, port, parts.netloc, (parts.path or "/")
            + (f"?{parts.query}" if parts.query else ""),
            method or ("GET" if data is None else "POST"), fields, body,
        )  # fmt: skip
        try:
            uvloop.run(
                _fetch(request, write, verbose, cacert, not insecure, connect_timeout, max_time)
            )
        except FetchError as error:
            raise click.ClickException(str(error)) from error
        sink.flush()


class _Request:
    def __init__(
        self,
        host: str,
        port: int,
        authority: str,
        path: str,
        method: str,
        fields: list[Field],
        body: bytes,
    ) -> None:
        self.host, self.port, self.authority, self.path = host, port, authority, path
        self.method, self.fields, self.body = method, fields, body


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise click.UsageError(f"-d @{name}: {error.strerror}") from error


def _header(line: str) -> Field:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"-H {line!r} is not NAME: VALUE")
    return name.strip().lower().encode(), value.strip().encode()


def _writer(sink: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        sink.write(data)

    return write


def _progress(stack: ExitStack, sink: BinaryIO) -> Callable[[bytes], None]:
    progress = stack.enter_context(
        Progress(
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
    )
    task = progress.add_task("", total=None)

    def write(data: bytes) -> None:
        sink.write(data)
        progress.update(task, advance=len(data))

    return write


async def _fetch(
    request: _Request,
    write: Callable[[bytes], None],
    verbose: bool,
    cacert: str | None,
    verify: bool,
    connect_timeout: float,
    max_time: float,
) -> None:
    client = await Client.connect(
        request.host, request.port, ca_file=cacert, verify=verify, timeout=connect_timeout
    )
    try:
        if verbose:
            _show(f"> {request.method} {request.path} HTTP/3", request.fields, "> ")
        answer = await client.fetch(
            request.method,
            request.authority,
            request.path,
            request.fields,
            request.body,
            on_body=write,
            timeout=max_time,
        )
        if verbose:
            show_answer(client, answer)
    finally:
        await client.close()
        await asyncio.sleep(0)


def _safe(value: bytes) -> str:
    # A server's words: no escape sequence of theirs may reach the terminal.
    return escape(text(value))


def _show(line: str, fields: list[Field], prefix: str) -> None:
    click.echo(line, err=True)
    for name, value in fields:
        click.echo(f"{prefix}{_safe(name)}: {_safe(value)}", err=True)


def show_answer(client: Client, answer: Answer) -> None:
    """The head of a response, its timings and its transport, to standard error."""
    for status, fields in answer.interim:
        _show(f"< HTTP/3 {status}", fields, "< ")
    _show(f"< HTTP/3 {answer.status}", answer.fields, "< ")
    for name, value in answer.trailers:
        click.echo(f"< {_safe(name)}: {_safe(value)} (trailer)", err=True)
    times = answer.timings
    click.echo(
        f"* handshake {_ms(times.handshake)}, first byte {_ms(times.first_byte)}, "
        f"total {_ms(times.total)}",
        err=True,
    )
    click.echo(f"* {transport_line(client)}", err=True)


def transport_line(client: Client) -> str:
    """One line about the connection."""
    connection = client.connection
    recovery, rtt = connection.recovery, connection.recovery.rtt
    return (
        f"QUIC {VERSION_NAMES.get(connection.version, '?')} {connection.cipher}, "
        f"smoothed_rtt {_ms(rtt.smoothed if rtt.initialized else None)}, "
        f"min_rtt {_ms(rtt.min if rtt.initialized else None)}, "
        f"congestion_window {recovery.congestion_window} B, "
        f"packets sent {connection.packets_sent} received {connection.packets_received} "
        f"lost {recovery.packets_lost}"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
