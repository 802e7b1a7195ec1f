"""Clients that nobody here wrote, through the edge, to nginx."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quicedge.config.devcerts import spki_sha256
from quicedge.qlog.blocked_time import Limit
from tests.support.edge import RunningEdge, edge
from tests.support.nat import nat
from tests.support.peers import gtlsclient, nginx, process, require, wait_until

CHACHA20 = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"
SIZES = {"small.txt": 100, "one.bin": 1_000_000, "ten.bin": 10_000_000}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("www")
    rng = random.Random(7)
    for name, size in SIZES.items():
        (directory / name).write_bytes(rng.randbytes(size))
    return directory


@pytest.fixture(scope="module")
def through_nginx(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[RunningEdge]:
    directory = tmp_path_factory.mktemp("edge")
    with nginx(directory, root) as origin, edge(directory, origin) as running:
        yield running


def assert_same(directory: Path, root: Path, *names: str) -> None:
    for name in names:
        got = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        assert got == hashlib.sha256((root / name).read_bytes()).hexdigest(), name


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rx-loss=0.02", "--tx-loss=0.02"),
        ("--change-local-addr=20ms",),
        ("--key-update=10ms", "--delay-stream=20ms"),
        (f"--ciphers={CHACHA20}",),
    ],
    ids=["plain", "loss", "migration", "key-update", "chacha20"],
)
def test_gtlsclient_downloads(
    through_nginx: RunningEdge, root: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = gtlsclient(
        through_nginx.port, "/ten.bin", "/small.txt", directory=tmp_path / "got", options=options
    )
    assert done.code == 0, done.output
    assert_same(tmp_path / "got", root, "ten.bin", "small.txt")


def test_gtlsclient_without_a_key_share_that_we_take_is_asked_for_one(
    through_nginx: RunningEdge, root: Path, tmp_path: Path
) -> None:
    """It sends a share of FFDHE alone, which we lack, and offers P-384, which we have."""
    done = gtlsclient(
        through_nginx.port, "/small.txt", directory=tmp_path / "got",
        options=("--groups=-GROUP-ALL:+GROUP-FFDHE2048:+GROUP-SECP384R1",),
    )  # fmt: skip
    assert done.code == 0, done.output
    assert_same(tmp_path / "got", root, "small.txt")


def test_a_fetch_of_a_hundred_megabytes_under_loss(
    through_nginx: RunningEdge, root: Path, tmp_path: Path
) -> None:
    big = root / "hundred.bin"
    big.write_bytes(random.Random(8).randbytes(100_000_000))
    done = gtlsclient(
        through_nginx.port, "/hundred.bin", directory=tmp_path / "got",
        options=("--rx-loss=0.02", "--tx-loss=0.02"), timeout=100,
    )  # fmt: skip
    assert done.code == 0, done.output
    assert_same(tmp_path / "got", root, "hundred.bin")
    big.unlink()


def test_a_nat_that_forgets_its_bindings_loses_no_byte(
    through_nginx: RunningEdge, root: Path, tmp_path: Path
) -> None:
    with nat(through_nginx.port, every=60, rebindings=5) as box:
        done = gtlsclient(box.port, "/ten.bin", directory=tmp_path / "got")
        assert done.code == 0, done.output
        assert box.rebindings == 5
    assert_same(tmp_path / "got", root, "ten.bin")


def test_curl_over_http3(through_nginx: RunningEdge, root: Path) -> None:
    curl_cffi = pytest.importorskip("curl_cffi")
    session = curl_cffi.Session(
        http_version=curl_cffi.CurlHttpVersion.V3ONLY, verify=str(through_nginx.certificate.ca)
    )
    url = f"https://localhost:{through_nginx.port}"
    got = session.get(f"{url}/one.bin")
    assert got.status_code == 200
    assert got.content == (root / "one.bin").read_bytes()
    assert f'h3=":{through_nginx.port}"' in got.headers["alt-svc"]
    head = session.head(f"{url}/one.bin")
    assert head.status_code == 200
    assert head.headers["content-length"] == str(SIZES["one.bin"])
    assert head.content == b""
    assert session.get(f"{url}/absent").status_code == 404
    session.close()


def test_what_the_origin_is_told(through_nginx: RunningEdge) -> None:
    curl_cffi = pytest.importorskip("curl_cffi")
    session = curl_cffi.Session(
        http_version=curl_cffi.CurlHttpVersion.V3ONLY, verify=str(through_nginx.certificate.ca)
    )
    forged = {
        "X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "Early-Data": "1",
        "X-Forwarded-Proto": "gopher",
    }  # fmt: skip
    answer = session.get(f"https://localhost:{through_nginx.port}/headers", headers=forged)
    told = dict(line.split("=", 1) for line in answer.text.splitlines())
    session.close()
    authority = f"localhost:{through_nginx.port}"
    assert told["host"] == authority
    assert told["xff"] in ("127.0.0.1", "::1")
    assert told["proto"] == "https"
    assert told["early"] == ""
    assert told["via"] == "3 quicedge"
    assert "6.6.6.6" not in told["forwarded"]


def test_chromium_loads_a_page_over_quic(tmp_path: Path) -> None:
    """A page with thirty sub-resources, in a browser that is told to use QUIC at once."""
    from tests.support.origin import demo_origin

    chromium = require("chromium")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}/profile", "--enable-quic",
            f"--origin-to-force-quic-on=localhost:{running.port}",
            f"--ignore-certificate-errors-spki-list={spki_sha256(running.certificate.cert)}",
            "--host-resolver-rules=MAP localhost 127.0.0.1",
            "--virtual-time-budget=15000", "--dump-dom",
            f"https://localhost:{running.port}/gallery",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=90, check=False)
        page = done.stdout.decode()
        assert "30 pictures loaded" in page, page + done.stderr.decode()[-2000:]
        wait_until(lambda: len(running.access()) >= 32, "32 records in the access log")
        records = running.access()
        tiles = {r["path"] for r in records if r["path"].startswith("/tile/")}
        assert len(tiles) == 30
        assert {r["protocol"] for r in records} == {"h3"}
        # One connection carries the page and its pictures.
        assert len({r["connection_id"] for r in records if r["path"] in tiles}) == 1


def test_the_access_log_shows_the_transport(through_nginx: RunningEdge, tmp_path: Path) -> None:
    gtlsclient(through_nginx.port, "/one.bin", directory=tmp_path / "got")

    def logged() -> list[dict[str, Any]]:
        return [
            record
            for record in through_nginx.access()
            if (record["method"], record["path"]) == ("GET", "/one.bin")
        ]

    wait_until(lambda: bool(logged()), "the access log")
    record = logged()[-1]
    assert record["status"] == 200
    assert record["bytes_sent"] == SIZES["one.bin"]
    assert record["outcome"] == "complete"
    assert record["quic_version"] == "v1"
    assert record["congestion_window"] > 0
    assert 0 < record["smoothed_rtt"] < 1
    assert record["limited_by"] in set(Limit)
    assert record["total_seconds"] >= record["first_byte_seconds"] > 0


def test_connections_are_shown_while_they_live(
    through_nginx: RunningEdge, root: Path, tmp_path: Path
) -> None:
    endless = root / "long.bin"
    endless.write_bytes(bytes(200_000_000))
    command = [
        require("gtlsclient"), "--quiet", "--exit-on-all-streams-close",
        f"--download={tmp_path}", "--no-quic-dump", "--no-http-dump",
        "127.0.0.1", str(through_nginx.port),
        f"https://localhost:{through_nginx.port}/long.bin",
    ]  # fmt: skip

    found: list[dict[str, Any]] = []

    def is_shown() -> bool:
        # The connections of other tests' clients may still be there.
        for row in through_nginx.admin("/api/v1/connections")["connections"]:
            if row["requests_active"] and row["bytes_sent"] > 1_000_000:
                detail = through_nginx.admin(f"/api/v1/connections/{row['id']}")
                if "/long.bin" in {stream["path"] for stream in detail["streams"]}:
                    found[:] = [row, detail]
        return bool(found)

    with process(command, tmp_path / "client.log"):
        wait_until(is_shown, "the client's connection")
        endless.unlink()
    row, detail = found
    assert row["sni"] == "localhost"
    assert row["congestion_controller"] == "cubic"
    assert row["state"] == "connected"
    assert row["main_direction"] == "sending"
    assert row["limited_by"] in set(Limit)
    assert {*row["sending_limited_seconds"]} <= set(Limit)
    told = sum(row["sending_limited_seconds"].values())
    assert told == pytest.approx(row["age_seconds"], abs=0.5)
    assert [stream["path"] for stream in detail["streams"]] == ["/long.bin"]
    assert detail["paths"][0]["validated"] is True
