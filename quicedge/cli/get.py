"""`quicedge get`: fetch a URL over HTTP/3, with transport measurements."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

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

from quicedge.cli.addresses import Addresses, ResolveError
from quicedge.cli.client import Answer, Client, FetchError
from quicedge.cli.exitcodes import ExitCode
from quicedge.cli.redirects import Request, location_of, next_request
from quicedge.cli.url import Target, UrlError, parse
from quicedge.http.grammar import AUTHORITY, FIELD_VALUE, TOKEN
from quicedge.http.message import Field
from quicedge.quic.packet import VERSION_NAMES
from quicedge.telemetry.text import escape, text

MAX_SECONDS = 86400.0
"""Maximum timeout in seconds: one day."""
_NOT_IN_HTTP3 = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Connection-specific fields (RFC 9114 section 4.2), which are not sent, as in curl."""


class Seconds(click.ParamType):
    """A positive, finite number of seconds."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
            self.fail(f"{value!r} must be above 0 and at most {MAX_SECONDS:g} seconds", param, ctx)
        return seconds


def _give_up(message: str, exit_code: ExitCode) -> NoReturn:
    """Print an error and exit with curl's exit code for it."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(exit_code)


@dataclass(frozen=True)
class Options:
    """Options of a fetch."""

    verbose: bool = False
    head: bool = False
    """Show response heads instead of content."""
    fail: bool = False
    follow: bool = False
    max_redirects: int = 50
    path_as_is: bool = False
    cacert: str | None = None
    verify: bool = True
    server_name: str | None = None
    addresses: Addresses = field(default_factory=Addresses)
    connect_timeout: float = 10.0
    max_time: float = 300.0


@click.command()
@click.argument("url")
@click.option("-v", "--verbose", is_flag=True, help="Show fields, timings and transport state.")
@click.option("-d", "--data", help="Request body (POST); @FILE reads a file, "
              "@- standard input.")  # fmt: skip
@click.option(
    "-X", "--request", "method", help="Method [default: GET, POST with -d, HEAD with -I]."
)
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE",
              help="Add a header field; `Host:` becomes :authority.")  # fmt: skip
@click.option("-I", "--head", is_flag=True, help="Send HEAD and print the response head.")
@click.option("-L", "--location", "follow", is_flag=True, help="Follow redirects.")
@click.option("--max-redirs", "max_redirects", default=50, show_default=True,
              type=click.IntRange(0, 1000), help="Redirects that -L follows.")  # fmt: skip
@click.option("-f", "--fail", is_flag=True, help="Exit with 22 on status 400 or above, no content.")
@click.option("-o", "--output", metavar="FILE", help="Write the body to a file.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the certificate.")
@click.option("--cacert", metavar="FILE", help="CA to trust (PEM).")
@click.option("--resolve", multiple=True, metavar="HOST:PORT:ADDRESS",
              help="Connect there for this host and port; `*` is any host.")  # fmt: skip
@click.option("--sni", metavar="NAME",
              help="Request and expect the certificate of this name.")  # fmt: skip
@click.option("--path-as-is", is_flag=True, help="Send `.` and `..` in the path unchanged.")
@click.option("--connect-timeout", default=10.0, show_default=True, type=Seconds())
@click.option("-m", "--max-time", default=300.0, show_default=True, type=Seconds())
def command(
    url: str,
    verbose: bool,
    data: str | None,
    method: str | None,
    headers: tuple[str, ...],
    head: bool,
    follow: bool,
    max_redirects: int,
    fail: bool,
    output: str | None,
    insecure: bool,
    cacert: str | None,
    resolve: tuple[str, ...],
    sni: str | None,
    path_as_is: bool,
    connect_timeout: float,
    max_time: float,
) -> None:
    """Fetch URL over HTTP/3; the body goes to standard output.

    Exit codes are curl's: 3 malformed URL, 6 host not resolved, 7 connection failed, 18 content
    shorter than declared, 22 --fail, 23 write error, 26 read error, 28 timeout, 35 TLS error,
    47 too many redirects, 56 connection lost, 60 certificate not verified, 77 CA file unusable,
    95 HTTP/3 error.
    """
    request = Request(
        _target(url, path_as_is), _method(method, data, head), _fields(headers), _body(data)
    )
    options = Options(
        verbose=verbose, head=head, fail=fail, follow=follow, max_redirects=max_redirects,
        path_as_is=path_as_is, cacert=cacert, verify=not insecure, server_name=_server_name(sni),
        addresses=_addresses(resolve), connect_timeout=connect_timeout, max_time=max_time,
    )  # fmt: skip
    try:
        _run(request, options, output)
    except FetchError as error:
        _give_up(str(error), error.exit_code)
    except OSError as error:
        # Buffered writes may fail only now: disk full or broken pipe.
        if output is None and error.errno == errno.EPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _give_up(f"cannot write the response: {error.strerror}", ExitCode.WRITE_ERROR)


def _run(request: Request, options: Options, output: str | None) -> None:
    """Fetch to a file or standard output; raises FetchError, and OSError of failed writes."""
    with ExitStack() as stack:
        sink = sys.stdout.buffer
        if output is not None:
            try:
                sink = stack.enter_context(open(output, "wb"))
            except OSError as error:
                _give_up(f"-o {output}: {error.strerror}", ExitCode.WRITE_ERROR)
        write = _progress(stack, sink) if output and sys.stderr.isatty() else _writer(sink)
        uvloop.run(_fetch(request, write, options))
        sink.flush()


def _target(url: str, path_as_is: bool) -> Target:
    try:
        return parse(url, path_as_is=path_as_is)
    except UrlError as error:
        _give_up(str(error), ExitCode.URL_MALFORMED)


def _method(method: str | None, data: str | None, head: bool) -> str:
    if head and data is not None:
        raise click.UsageError("-I and -d are mutually exclusive")
    if head and method not in (None, "HEAD"):
        raise click.UsageError(f"-I and -X {method} are mutually exclusive")
    if method is None:
        method = "HEAD" if head else "GET" if data is None else "POST"
    if not TOKEN.fullmatch(method.encode()):
        raise click.UsageError(f"-X {method!r} is not a valid method")
    return method


def _body(data: str | None) -> bytes:
    if data is None or not data.startswith("@"):
        return (data or "").encode()
    try:
        return sys.stdin.buffer.read() if data == "@-" else Path(data[1:]).read_bytes()
    except OSError as error:
        _give_up(f"-d {data}: {error.strerror}", ExitCode.READ_ERROR)


def _fields(lines: Sequence[str]) -> list[Field]:
    fields = []
    for line in lines:
        # As in curl: `Name;` sends an empty value, `Name:` no field at all.
        empty = line.endswith(";") and ":" not in line
        head, colon, rest = line.partition(";" if empty else ":")
        name, value = head.strip().lower().encode(), rest.strip().encode()
        if not colon or not TOKEN.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
            raise click.UsageError(f"-H {line!r} is not NAME: VALUE")
        if name == b"host" and value and not AUTHORITY.fullmatch(value):
            raise click.UsageError(f"-H {line!r} does not name a host")
        if name in _NOT_IN_HTTP3:
            click.echo(f"Warning: -H {head.strip()}: not sent: not allowed in HTTP/3", err=True)
        elif value or empty:
            fields.append((name, value))
    return fields


def _addresses(entries: Sequence[str]) -> Addresses:
    try:
        return Addresses(entries)
    except ResolveError as error:
        raise click.UsageError(f"--resolve {error}") from error


def _server_name(name: str | None) -> str | None:
    if name is not None and not (
        name.isascii() and name.replace("-", "").replace(".", "").isalnum()
    ):
        raise click.UsageError(f"--sni {name!r} is not a host name")
    return name


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


async def _fetch(request: Request, write: Callable[[bytes], None], options: Options) -> None:
    try:
        async with asyncio.timeout(options.max_time):
            await _follow(request, write, options)
    except TimeoutError:
        message = f"operation timed out after {options.max_time:g} s"
        raise FetchError(message, ExitCode.TIMEOUT) from None


async def _follow(request: Request, write: Callable[[bytes], None], options: Options) -> None:
    """Send the request and follow redirects, reusing the connection where possible."""
    client: Client | None = None
    connected: Target | None = None
    try:
        for _ in range(options.max_redirects + 1):
            if (
                client is None
                or not client.connection.is_alive
                or not (connected and connected.is_same_origin(request.target))
            ):
                if client is not None:
                    await client.close()
                client, connected = await _connect(request.target, options), request.target
            answer = await _exchange(client, request, write, options)
            location = location_of(answer.status, answer.fields) if options.follow else None
            if location is None:
                return
            try:
                request = next_request(request, answer.status, location)
            except UrlError as error:
                message = f"redirect: {error}"
                raise FetchError(message, ExitCode.UNSUPPORTED_PROTOCOL) from error
        message = f"more than {options.max_redirects} redirects"
        raise FetchError(message, ExitCode.TOO_MANY_REDIRECTS)
    finally:
        if client is not None:
            await client.close()
            await asyncio.sleep(0)


async def _connect(target: Target, options: Options) -> Client:
    return await Client.connect(
        target.host,
        target.port,
        ca_file=options.cacert,
        verify=options.verify,
        timeout=options.connect_timeout,
        server_name=options.server_name,
        addresses=options.addresses,
    )


async def _exchange(
    client: Client, request: Request, write: Callable[[bytes], None], options: Options
) -> Answer:
    """Send one request and receive its response; unwanted content is discarded."""
    wanted = True

    def on_head(answer: Answer) -> None:
        nonlocal wanted
        if options.head:
            write(_head_of(answer))
        if options.follow and location_of(answer.status, answer.fields) is not None:
            wanted = False
        elif options.fail and answer.status >= 400:
            wanted = False
            raise FetchError(f"the server answered {answer.status}", ExitCode.HTTP_ERROR)

    fields = request.sent_fields
    if options.verbose:
        _show(f"> {request.method} {request.target.path} HTTP/3", fields, "> ")
    try:
        return await client.fetch(
            request.method,
            request.authority,
            request.target.path,
            fields,
            request.body,
            on_body=lambda data: write(data) if wanted else None,
            on_head=on_head,
            timeout=options.max_time,
        )
    finally:
        if options.verbose and client.answer.status:
            show_answer(client, client.answer)


def _head_of(answer: Answer) -> bytes:
    lines = [f"HTTP/3 {answer.status}"]
    lines += [f"{_safe(name)}: {_safe(value)}" for name, value in answer.fields]
    return ("\n".join(lines) + "\n\n").encode()


def _safe(value: bytes) -> str:
    # Untrusted text: no escape sequences may reach the terminal.
    return escape(text(value))


def _show(line: str, fields: list[Field], prefix: str) -> None:
    click.echo(line, err=True)
    for name, value in fields:
        click.echo(f"{prefix}{_safe(name)}: {_safe(value)}", err=True)


def show_answer(client: Client, answer: Answer) -> None:
    """Print the head of a response, its timings and transport state to standard error."""
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
    """Summarise the connection in one line."""
    connection = client.connection
    recovery, rtt = connection.recovery, connection.recovery.rtt
    handshake, counters = connection.handshake, connection.counters
    return (
        f"QUIC {VERSION_NAMES.get(handshake.version, '?')} {handshake.cipher}, "
        f"smoothed_rtt {_ms(rtt.smoothed if rtt.initialized else None)}, "
        f"min_rtt {_ms(rtt.min if rtt.initialized else None)}, "
        f"congestion_window {recovery.congestion_window} B, "
        f"packets sent {counters.packets_sent} received {counters.packets_received} "
        f"lost {recovery.packets_lost}"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
