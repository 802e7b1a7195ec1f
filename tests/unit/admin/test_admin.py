import asyncio
import http.client
import json
import os
import socket
import stat
from collections.abc import AsyncIterator

import pytest

from quicedge.admin.guard import is_loopback_host
from quicedge.admin.server import AdminAddressError, AdminServer, open_admin_socket
from quicedge.admin.view import Connections, EdgeState, Status
from quicedge.config.schema import Admin
from quicedge.native import Core
from quicedge.telemetry.stats import ConnectionQuery, ConnectionStats, select

ROWS = [
    ConnectionStats(
        id=f"{n:02x}ff",
        worker=n % 2,
        time=0.0,
        created_at=float(n),
        remote_address=f"192.0.2.{n}:4433",
        sni="a.example" if n < 3 else "b.example",
        smoothed_rtt=n / 100,
    )
    for n in range(5)
]


class FakeEdge:
    state: EdgeState = EdgeState.RUNNING
    ready = True
    broken = False

    def __init__(self) -> None:
        self.closed: list[tuple[str, int, str]] = []

    async def status(self) -> Status:
        if self.broken:
            raise RuntimeError("secret insides")
        return Status(
            core=Core.COMPILED,
            version="0", state=self.state, pid=1, uptime_seconds=2.5, config_path=None, reloads=0,
            last_reload_error=None, connections=5, listeners=[], workers=[],
        )  # fmt: skip

    async def connections(self, query: ConnectionQuery) -> Connections:
        page = select(ROWS, query)
        return Connections(
            total=page.total, limit=query.limit, offset=query.offset, unanswered=[],
            connections=page.connections,
        )  # fmt: skip

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        return next((row for row in ROWS if row.id == connection_id), None)

    async def close_connection(self, connection_id: str, code: int, reason: str) -> bool:
        self.closed.append((connection_id, code, reason))
        return any(row.id == connection_id for row in ROWS)


class Client:
    """Asks an AdminServer in this loop, from a thread."""

    def __init__(self, server: AdminServer, edge: FakeEdge) -> None:
        self.edge = edge
        self._address = server.address

    async def get(self, path: str, host: str | None = None, method: str = "GET"):
        return await asyncio.to_thread(self._get, path, host, method)

    def _get(self, path: str, host: str | None, method: str):
        name, _, port = self._address.rpartition(":")
        connection = http.client.HTTPConnection(name, int(port), timeout=10)
        connection.request(method, path, headers={"Host": host} if host is not None else {})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.headers["content-type"] == "application/json":
            return response.status, json.loads(body)
        return response.status, body.decode()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    edge = FakeEdge()
    server = AdminServer(Admin(listen="127.0.0.1:0"), edge)
    server.start()
    yield Client(server, edge)
    await server.close()


async def test_connections_are_paged_sorted_and_filtered(client: Client) -> None:
    status, page = await client.get("/api/v1/connections?sort=smoothed_rtt&limit=2&offset=1")
    assert status == 200
    assert [row["id"] for row in page["connections"]] == ["01ff", "02ff"]
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)
    assert page["connections"][0]["smoothed_rtt"] == 0.01
    _, page = await client.get("/api/v1/connections?sni=b.example&address=192.0.2.0/24")
    assert [row["id"] for row in page["connections"]] == ["04ff", "03ff"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=100000", "limit"),
        ("sort=nonsense", "sort"),
        ("address=nowhere", "address"),
        ("adress=192.0.2.1", "adress"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_bad_queries_are_explained(client: Client, query: str, word: str) -> None:
    status, answer = await client.get(f"/api/v1/connections?{query}")
    assert status == 400
    assert word in answer["error"]


async def test_one_connection(client: Client) -> None:
    status, row = await client.get("/api/v1/connections/03ff")
    assert (status, row["id"]) == (200, "03ff")
    assert await client.get("/api/v1/connections/nope") == (404, {"error": "no such connection"})


async def test_status_health_and_readiness(client: Client) -> None:
    status, answer = await client.get("/api/v1/status")
    assert (status, answer["state"]) == (200, "running")
    assert await client.get("/healthz") == (200, "ok\n")
    assert await client.get("/readyz") == (200, "ready\n")
    client.edge.ready, client.edge.state = False, EdgeState.DRAINING
    assert await client.get("/readyz") == (503, "not ready: draining\n")


async def test_errors_are_json_and_hide_the_insides(client: Client) -> None:
    assert await client.get("/elsewhere") == (404, {"error": "Not Found"})
    status, _ = await client.get("/api/v1/status", method="PUT")
    assert status == 405
    client.edge.broken = True
    assert await client.get("/api/v1/status") == (500, {"error": "internal error"})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:4480", 200),
        ("127.0.0.1:4480", 200),
        ("[::1]:4480", 200),
        ("attacker.example", 403),
        ("attacker.example:4480", 403),
        ("127.0.0.1.attacker.example", 403),
        ("192.0.2.1", 403),
        ("", 403),
    ],
)
async def test_the_host_must_be_loopback(client: Client, host: str, status: int) -> None:
    assert (await client.get("/api/v1/connections", host=host))[0] == status
    assert (await client.get("/healthz", host=host))[0] == status


@pytest.mark.parametrize(
    "host", ["localhost:x", "localhost:", "::1", "[::1", "[127.0.0.1]", "localhost.", "127.1"]
)
def test_odd_hosts_are_no_loopback(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:4480", "[::]:4480", "192.0.2.1:4480", "4480", "example.com:80", "[::1]:x"]
)
def test_only_loopback_is_listened_on(listen: str) -> None:
    with pytest.raises(AdminAddressError, match=r"admin\.listen"):
        open_admin_socket(listen)


def test_a_port_in_use_is_named() -> None:
    with open_admin_socket("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AdminAddressError, match=f"127.0.0.1:{port}: .*in use"):
            open_admin_socket(f"127.0.0.1:{port}")


async def test_a_unix_socket_is_its_owners_alone(tmp_path) -> None:
    path = str(tmp_path / "admin.sock")
    # Left behind by a process that was killed.
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    server = AdminServer(Admin(listen=f"unix:{path}"), FakeEdge())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    server.start()
    with pytest.raises(AdminAddressError, match="in use"):
        open_admin_socket(f"unix:{path}")
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await server.close()
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_is_not_removed(tmp_path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AdminAddressError, match="not a socket"):
        open_admin_socket(f"unix:{path}")
    assert path.read_text() == "data"
