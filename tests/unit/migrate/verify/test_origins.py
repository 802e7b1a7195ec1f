"""Origins that record what they see."""

from __future__ import annotations

import socket
import threading

import pytest

from quicedge.migrate.verify.client import ECHOED, play, upgrade_headers
from quicedge.migrate.verify.material import Material
from quicedge.migrate.verify.message import Protocol, Sample, value_of, values_of
from quicedge.migrate.verify.origins import ASK, Origin, Origins


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def origin(material):
    origin = Origin("10.0.0.1:80", material.server_context())
    yield origin
    origin.close()


def test_a_request_is_recorded_and_answered_with_much_to_change(origin):
    sample = Sample("POST", "http://a.example.com/x?y=1", [("x-a", "1")], b"body")
    response = play(sample, origin.port)
    assert response.status == 200
    assert len(values_of(response.headers, "set-cookie")) == 2
    (seen,) = origin.take()
    assert (seen.origin, seen.method, seen.target) == ("10.0.0.1:80", "POST", "/x?y=1")
    assert (value_of(seen.headers, "host"), seen.body) == ("a.example.com", b"body")
    assert origin.take() == []


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_both_protocols_are_spoken_with_and_without_tls(origin, protocol, scheme):
    sample = Sample("GET", f"{scheme}://a.example.com/x", protocol=protocol)
    assert play(sample, origin.port).status == 200
    (seen,) = origin.take()
    assert (seen.method, seen.target) == ("GET", "/x")
    assert value_of(seen.headers, "host") == "a.example.com"


@pytest.mark.parametrize(("asked", "status"), [("404", 404), ("204", 204), ("redirect", 302)])
def test_a_request_chooses_its_answer(origin, asked, status):
    response = play(Sample("GET", "http://a.example.com/", [(ASK, asked)]), origin.port)
    assert response.status == status


@pytest.mark.parametrize("protocol", Protocol)
def test_no_more_of_a_response_is_kept_than_the_bound(origin, protocol, monkeypatch):
    monkeypatch.setattr("quicedge.migrate.verify.client.MAX_BODY", 1000)
    response = play(Sample("GET", "https://a.example.com/", protocol=protocol), origin.port)
    assert (response.status, len(response.body), response.failure) == (200, 1000, "")


def test_a_websocket_echoes(origin):
    sample = Sample("GET", "http://a.example.com/", upgrade_headers())
    response = play(sample, origin.port)
    assert (response.status, response.body) == (101, ECHOED)


def test_a_closed_origin_takes_no_connection_of_a_later_one(material):
    """A thread that still waits on a closed descriptor would, when its number is used again."""
    before = threading.active_count()
    for _ in range(20):
        origins = Origins(material.server_context())
        port = origins.port_of("10.0.0.1:80")
        assert play(Sample("GET", "http://a.example.com/"), port).status == 200
        assert len(origins.take()) == 1
        origins.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
    assert threading.active_count() <= before + 10
