"""`quicedge qlog tail`: a live connection's qlog events as they happen, without a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from string import hexdigits
from typing import Any
from urllib.parse import quote, urlencode

import click

from quicedge.cli.adminclient import AdminClient, AdminError, admin_client, admin_options
from quicedge.qlog.event import TraceHeader, mapping
from quicedge.qlog.normalise import Trace
from quicedge.qlog.show import Filter, as_json, line

_CANDIDATES = 5
"""Connections listed when an ID prefix is ambiguous."""


@click.command("tail")
@click.argument("connection", metavar="ID")
@click.option("--level", type=click.Choice(("core", "base", "extra")), default="base",
              show_default=True,
              help="Detail: core (packets, recovery), base (and states), extra (all).")  # fmt: skip
@click.option("-t", "--type", "types", multiple=True, metavar="NAME",
              help="Events of this name; `*` allowed, repeatable: packet_*, http3:*.")  # fmt: skip
@click.option("--packet", type=click.IntRange(min=0), help="Events about this packet number.")
@click.option("--stream", type=click.IntRange(min=0), help="Events about this stream.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("--json", "as_data", is_flag=True, help="Print JSON, one event per line.")
@click.option("--raw", is_flag=True, help="Write the raw trace (JSON-SEQ), including its header.")
@admin_options
def command(
    connection: str,
    level: str,
    types: tuple[str, ...],
    packet: int | None,
    stream: int | None,
    limit: int | None,
    as_data: bool,
    raw: bool,
    admin: str,
    token_file: Any,
) -> None:
    """Print the events of a live connection as they happen.

    ID is the one shown by `quicedge top` and the access log (`conn=ID/STREAM` of the console format
    is accepted), or a prefix of any of its connection IDs. Stops with the connection, or on Ctrl-C.
    """
    client = admin_client(admin, token_file)
    wanted = Filter(types, packet, stream)
    render = as_json if as_data else line
    shown = 0
    try:
        for record, event in _events(client, find_connection(client, connection), level):
            if event is not None and not wanted(event):
                continue
            if raw:
                click.echo(b"\x1e" + record)
            elif event is not None:
                click.echo(render(event))
            shown += event is not None
            if limit is not None and shown >= limit:
                return
    except AdminError as error:
        raise click.ClickException(str(error)) from error


def connection_id(text: str) -> str:
    """Extract the ID from pasted text, such as `conn=1a2b3c4d/8` from the access log."""
    return text.strip().removeprefix("conn=").partition("/")[0].lower()


def find_connection(client: AdminClient, pasted: str) -> str:
    """Find the unique matching connection; raises AdminError otherwise."""
    wanted = connection_id(pasted)
    if not wanted or wanted.strip(hexdigits):
        raise AdminError(f"{pasted!r} is not a connection ID")
    query = urlencode({"cid": wanted, "limit": _CANDIDATES})
    page = client.get(f"/api/v1/connections?{query}")
    found = [str(row["id"]) for row in page["connections"]]
    if not found:
        raise AdminError(f"no live connection has an ID starting with {wanted}")
    if wanted in found:
        return wanted
    if page["total"] > 1:
        more = ", ..." if page["total"] > len(found) else ""
        raise AdminError(f"several connections match {wanted}: {', '.join(found)}{more}")
    return found[0]


def _events(client: AdminClient, connection: str, level: str) -> Iterator[tuple[bytes, Any]]:
    """Yield each record with its event, or with None for a header."""
    trace: Trace | None = None
    for name, data in client.events(f"/api/v1/connections/{quote(connection)}/events?qlog={level}"):
        if name != "qlog":
            continue
        record = json.loads(data)
        if "trace" in record:
            trace = Trace(TraceHeader(0, record, dict(mapping(record, "trace"))))
            yield data, None
        elif trace is not None:
            yield data, trace.translate(record)
