import errno
import socket

import pytest
import structlog

from quicedge.supervisor import sockets as sockets_module
from quicedge.supervisor.sockets import ListenError, Listeners, resolve_listen
from quicedge.udp.connection_id_codec import ConnectionIdCodec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:443", (socket.AF_INET, "127.0.0.1", 443)),
        ("[::1]:443", (socket.AF_INET6, "::1", 443)),
        ("0.0.0.0:0", (socket.AF_INET, "0.0.0.0", 0)),
        ("[::]:4433", (socket.AF_INET6, "::", 4433)),
    ],
)
def test_addresses(text, expected) -> None:
    family, address = resolve_listen(text)
    assert (family, *address) == expected


@pytest.mark.parametrize(
    "text", ["", "443", "127.0.0.1", "::1:443", "[::1]", "127.0.0.1:x", "127.0.0.1:70000", "a b:1"]
)
def test_bad_addresses_are_named(text) -> None:
    with pytest.raises(ListenError, match="listen: ") as error:
        resolve_listen(text)
    assert text in str(error.value)


def test_each_worker_has_a_socket_of_each_address() -> None:
    listeners = Listeners(["127.0.0.1:0", "[::1]:0"], workers=2)
    try:
        mine, other = listeners.of_slot(0), listeners.of_slot(1)
        assert [item.address for item in mine] == [item.address for item in other]
        assert mine[0].address.startswith("127.0.0.1:")
        assert mine[1].address.startswith("[::1]:")
        assert len({item.fd for item in mine + other}) == 4
        for item in mine + other:
            with socket.socket(fileno=item.fd) as sock:
                assert item.address.endswith(f":{sock.getsockname()[1]}")
                sock.detach()
    finally:
        listeners.close()


def test_nothing_stays_open_when_one_address_fails(monkeypatch) -> None:
    opened = []
    real = sockets_module.open_socket

    def recording(*args, **rest):
        opened.append(real(*args, **rest))
        return opened[-1]

    monkeypatch.setattr(sockets_module, "open_socket", recording)
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:443"):
        Listeners(["127.0.0.1:0", "192.0.2.1:443"], workers=2)
    assert len(opened) == 2
    assert all(sock.fileno() == -1 for sock in opened)


class SmallBuffers(socket.socket):
    """A socket that reports the default buffer sizes of Linux (twice the usable size)."""

    def getsockopt(self, level: int, option: int, *rest: int):
        if level == socket.SOL_SOCKET and option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            return 2 * 212992
        return super().getsockopt(level, option, *rest)


def test_refused_buffers_are_reported_once(monkeypatch) -> None:
    real = sockets_module.open_socket

    def open_small(*args, **rest):
        return SmallBuffers(fileno=real(*args, **rest).detach())

    monkeypatch.setattr(sockets_module, "open_socket", open_small)
    with structlog.testing.capture_logs() as lines:
        listeners = Listeners(["127.0.0.1:0", "127.0.0.1:0"], workers=1)
    listeners.close()
    receive = [line for line in lines if "receive" in line["event"]]
    assert len(receive) == 1
    assert receive[0]["granted"] == 212992
    assert "net.core.rmem_max" in receive[0]["remedy"]


def test_without_steering_it_works_and_says_so(monkeypatch) -> None:
    def refuse(*args, **rest) -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(ConnectionIdCodec, "steer", refuse)
    with structlog.testing.capture_logs() as lines:
        listeners = Listeners(["127.0.0.1:0"], workers=2)
    assert not listeners.status()[0].steering
    listeners.close()
    assert any("steering" in line["event"] for line in lines)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "ss -ulpn 'sport = :443'` shows who holds it"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "no local interface has this address"),
        (errno.EAFNOSUPPORT, "no IPv6"),
    ],
)
def test_an_address_refused_by_the_kernel_comes_with_a_remedy(monkeypatch, number, words) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(sockets_module, "open_socket", refuse)
    with pytest.raises(ListenError, match=r"127\.0\.0\.1:443: refused: ") as caught:
        Listeners(["127.0.0.1:443"], 1)
    assert words in str(caught.value)
