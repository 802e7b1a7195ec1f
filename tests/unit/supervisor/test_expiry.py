"""What is said of certificates that expire."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from quicedge.quic.tls import CertificatePem, read_certificate
from quicedge.supervisor.expiry import CertificateWatch
from tests.support.certs import write_certificate

DAY = 86400.0
EXPIRES = datetime.datetime(2031, 5, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def pem(tmp_path: Path) -> CertificatePem:
    return read_certificate(*write_certificate(tmp_path, "a.example", expires=EXPIRES))


@pytest.mark.parametrize(
    ("days_before", "said"),
    [
        (15, []),
        (13.5, [("warning", "certificate expires soon")]),
        (-0.5, [("error", "certificate expired")]),
        (40_000, [("error", "certificate not yet valid")]),
    ],
)
def test_a_line_says_what_clients_will_refuse(pem, days_before, said) -> None:
    now = EXPIRES.timestamp() - days_before * DAY
    with capture_logs() as lines:
        CertificateWatch(clock=lambda: now).use([pem])
    assert [(line["log_level"], line["event"]) for line in lines] == said
    for line in lines:
        assert (line["file"], line["names"]) == (pem.cert_file, ["a.example"])


def test_the_days_left_and_the_date_are_told(pem) -> None:
    with capture_logs() as lines:
        CertificateWatch(clock=lambda: EXPIRES.timestamp() - 3.5 * DAY).use([pem])
    assert lines[0]["days_left"] == 3
    assert lines[0]["expires"] == "2031-05-01T12:00+00:00"


async def test_it_is_said_again_every_interval(pem) -> None:
    now = EXPIRES.timestamp() - 30 * DAY
    watch = CertificateWatch(clock=lambda: now, interval=0.001)
    with capture_logs() as lines:
        watch.use([pem])
        assert lines == []
        running = asyncio.create_task(watch.run())
        now += 20 * DAY
        async with asyncio.timeout(20):
            while len(lines) < 2:
                await asyncio.sleep(0.001)
        running.cancel()
    assert {line["event"] for line in lines} == {"certificate expires soon"}


def test_an_intermediate_that_expires_first_counts(tmp_path: Path, pem) -> None:
    soon = EXPIRES - datetime.timedelta(days=100)
    intermediate = write_certificate(
        tmp_path, "intermediate", stem="intermediate", expires=soon, issuer="root"
    )
    root = write_certificate(
        tmp_path, "root", stem="root", expires=soon - datetime.timedelta(days=1)
    )
    chain = pem.cert + intermediate[0].read_bytes() + root[0].read_bytes()
    watch = CertificateWatch(clock=lambda: soon.timestamp() - DAY)
    with capture_logs() as lines:
        watch.use([CertificatePem(cert_file="chain", key_file="key", cert=chain, key=pem.key)])
    assert [line["event"] for line in lines] == ["certificate expires soon"]
    assert watch.status[0].not_after == soon.timestamp()
