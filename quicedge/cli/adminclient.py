"""A client of the admin API, used by commands."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import click


class AdminError(Exception):
    """The admin API did not answer, or answered with an error."""


class AdminClient:
    """Queries the admin API at `host:port` or `unix:/path`."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address = address
        self._token = token

    def get(self, path: str) -> Any:
        """Get a resource as decoded JSON; raises AdminError."""
        with self._ask(path) as answer:
            return json.loads(answer.read())

    def events(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Yield server-sent events as name and data; raises AdminError."""
        with self._ask(path) as answer:
            name, data = "message", []
            for line in answer:
                field, _, value = line.rstrip(b"\r\n").partition(b":")
                if field == b"event":
                    name = value.strip().decode()
                elif field == b"data":
                    data.append(value.removeprefix(b" "))
                elif not line.strip():
                    if data:
                        yield name, b"\n".join(data)
                    name, data = "message", []

    @contextlib.contextmanager
    def _ask(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield a successful response; errors while reading are AdminError."""
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection = self._connection()
            with contextlib.closing(connection):
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    found = json.loads(answer.read())
                    raise AdminError(f"{self._address}: {found.get('error', answer.status)}")
                yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Connection refused or no such socket: most likely the edge is not running.
            absent = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            hint = "; is the edge running? Set its admin address with --admin" if absent else ""
            reason = getattr(error, "strerror", None) or error
            raise AdminError(f"{self._address}: {reason}{hint}") from error

    def _connection(self) -> http.client.HTTPConnection:
        if not self._address.startswith("unix:"):
            return http.client.HTTPConnection(self._address, timeout=5)
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        connection.sock.connect(self._address.removeprefix("unix:"))
        return connection


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--admin` and `--token-file` to a command."""
    token = click.option("--token-file", type=click.File(), help="File with the bearer token.")
    address = click.option(
        "--admin", default="127.0.0.1:4480", show_default=True, metavar="ADDRESS",
        help="Address of the admin API, host:port or unix:/path.",
    )  # fmt: skip
    return address(token(command))


def admin_client(admin: str, token_file: Any) -> AdminClient:
    """Create the client for the values of `admin_options`."""
    if token_file is None:
        return AdminClient(admin)
    try:
        token = token_file.read().strip()
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"{token_file.name}: contains no token", param_hint="--token-file"
        ) from error
    return AdminClient(admin, token)
