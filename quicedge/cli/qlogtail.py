"""`quicedge qlog tail`: a live connection's qlog events as they happen, without a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import click

from quicedge.cli.adminclient import AdminClient, AdminError, admin_client, admin_options
from quicedge.qlog.event import TraceHeader, mapping
from quicedge.qlog.normalise import Trace
from quicedge.qlog.show import Filter, as_json, line


@click.command("tail")
@click.argument("connection", metavar="ID")
@click.option("--level", type=click.Choice(("core", "base", "extra")), default="base",
              show_default=True,
              help="How much: packets and recovery; also states; all.")  # fmt: skip
@click.option("-t", "--type", "types", multiple=True, metavar="NAME",
              help="Events of this name; `*` allowed, repeatable: packet_*, http3:*.")  # fmt: skip
@click.option("--packet", type=click.IntRange(min=0), help="Events about this packet number.")
@click.option("--stream", type=click.IntRange(min=0), help="Events about this stream.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after so many events.")
@click.option("--json", "as_data", is_flag=True, help="Print JSON, one event a line.")
@click.option("--raw", is_flag=True, help="Write the trace itself (JSON-SEQ), header and all.")
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

    ID is the connection's, as `quicedge top` and the access log have it, or the beginning of any of
    its connection IDs. It ends with the connection, or with Ctrl-C.
    """
    client = admin_client(admin, token_file)
    wanted = Filter(types, packet, stream)
    render = as_json if as_data else line
    shown = 0
    try:
        for record, event in _events(client, _find(client, connection), level):
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


def _find(client: AdminClient, wanted: str) -> str:
    """The connection that is meant; raises AdminError when it is none or not one."""
    query = urlencode({"cid": wanted, "limit": 2})
    found = client.get(f"/api/v1/connections?{query}")["connections"]
    if len(found) != 1:
        many = "several connections begin" if found else "no connection begins"
        raise AdminError(f"{many} with {wanted}")
    return str(found[0]["id"])


def _events(client: AdminClient, connection: str, level: str) -> Iterator[tuple[bytes, Any]]:
    """Each record with its event; None for a header."""
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
