import errno
import socket

import pytest
import structlog

from quicedge.config.listeners import Listening
from quicedge.supervisor import socket_groups
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


def listen_on(addresses, workers, protocols=("h3",)) -> Listeners:
    return Listeners([Listening(text, protocols) for text in addresses], workers)


@pytest.mark.parametrize(
    "text", ["", "443", "127.0.0.1", "::1:443", "[::1]", "127.0.0.1:x", "127.0.0.1:70000", "a b:1"]
)
def test_bad_addresses_are_named(text) -> None:
    with pytest.raises(ListenError, match="listen: ") as error:
        resolve_listen(text)
    assert text in str(error.value)


def test_each_worker_has_a_socket_of_each_address() -> None:
    listeners = listen_on(["127.0.0.1:0", "[::1]:0"], workers=2)
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
    real = socket_groups.open_socket

    def recording(*args, **rest):
        opened.append(real(*args, **rest))
        return opened[-1]

    monkeypatch.setattr(socket_groups, "open_socket", recording)
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:443"):
        listen_on(["127.0.0.1:0", "192.0.2.1:443"], workers=2)
    assert len(opened) == 2
    assert all(sock.fileno() == -1 for sock in opened)


class SmallBuffers(socket.socket):
    """A socket that reports the default buffer sizes of Linux (twice the usable size)."""

    def getsockopt(self, level: int, option: int, *rest: int):
        if level == socket.SOL_SOCKET and option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            return 2 * 212992
        return super().getsockopt(level, option, *rest)


def test_refused_buffers_are_reported_once(monkeypatch) -> None:
    real = socket_groups.open_socket

    def open_small(*args, **rest):
        return SmallBuffers(fileno=real(*args, **rest).detach())

    monkeypatch.setattr(socket_groups, "open_socket", open_small)
    with structlog.testing.capture_logs() as lines:
        listeners = listen_on(["127.0.0.1:0", "127.0.0.1:0"], workers=1)
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
        listeners = listen_on(["127.0.0.1:0"], workers=2)
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

    monkeypatch.setattr(socket_groups, "open_socket", refuse)
    with pytest.raises(ListenError, match=r"127\.0\.0\.1:443: refused: ") as caught:
        listen_on(["127.0.0.1:443"], 1)
    assert words in str(caught.value)


def test_udp_and_tcp_have_the_same_port_and_each_worker_both() -> None:
    listeners = listen_on(["127.0.0.1:0"], workers=2, protocols=("h3", "http/1.1"))
    try:
        found = [*listeners.of_slot(0), *listeners.tcp_of_slot(0), *listeners.tcp_of_slot(1)]
        assert len({item.address for item in found}) == 1
        assert len({item.fd for item in found}) == 3
        port = int(found[0].address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            pass
    finally:
        listeners.close()


def test_a_port_that_is_free_for_udp_alone_is_not_taken(monkeypatch) -> None:
    """Port 0 means one that both kinds of sockets can have."""
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        real, asked = socket_groups.open_socket, []

        def choose(family, host, wanted, **rest):
            asked.append(wanted)
            return real(family, host, port if len(asked) == 1 else wanted, **rest)

        monkeypatch.setattr(socket_groups, "open_socket", choose)
        listeners = listen_on(["127.0.0.1:0"], workers=1, protocols=("h3", "http/1.1"))
        assert asked == [0, 0]
        assert listeners.of_slot(0)[0].address == listeners.tcp_of_slot(0)[0].address
        listeners.close()


def test_without_h3_there_is_no_udp_socket_and_without_others_no_tcp_socket() -> None:
    listeners = Listeners(
        [Listening("127.0.0.1:0", ("http/1.1",)), Listening("127.0.0.1:0", ("h3",))], 1
    )
    assert [item.entry for item in listeners.tcp_of_slot(0)] == [0]
    assert [item.entry for item in listeners.of_slot(0)] == [1]
    assert [state.sockets for state in listeners.status()] == [0, 1]
    listeners.close()


def test_a_tcp_address_in_use_is_named_with_the_command_that_shows_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for workers in (1, 2):
            with pytest.raises(ListenError, match="ss -tlpn") as caught:
                listen_on([address], workers, protocols=("http/1.1",))
            assert address in str(caught.value)
