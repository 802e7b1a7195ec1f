"""What a worker does with a datagram of a connection that it does not know, in a fleet."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from quicedge.config.limits import FLEET_PEER_TIMEOUT
from quicedge.udp import kernel
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import QuicLbLayout
from quicedge.udp.fleet import FleetForwarder
from quicedge.udp.fleet_messages import FleetOpener, Forward, Kind, Present, Probe, Relay
from quicedge.udp.forwarding import Forwarder
from quicedge.udp.quic_lb import QuicLb, ServerIds
from quicedge.udp.socket import FourTuple, UdpSocket
from tests.support.fleet_listener import FleetListener

SECRET = b"s" * 32
HERE, THERE, NOWHERE = b"\0\1", b"\0\2", b"\0\3"
LB = QuicLb(1, 2, 8, b"k" * 16)
LENGTH = 12
CLIENT = ("192.0.2.7", 40000)
WALL = 1_000_000.0


class Slots:
    """Steering between workers that owns nothing, or takes everything."""

    def __init__(self, takes: bool = False) -> None:
        self.takes = takes
        self.seen: list[bytes] = []

    def forward(self, data: bytes, path: FourTuple, ecn: int) -> bool:
        self.seen.append(data)
        return self.takes


class Host:
    """A worker of a host, and where its messages to the other host arrive."""

    def __init__(self, server_id: bytes = HERE, **options: Any) -> None:
        self.now = 100.0
        self.listener = options.pop("listener", None) or FleetListener()
        self.slots = options.pop("slots", None) or Slots()
        self.forwarder = FleetForwarder(
            server_id, ServerIds(LENGTH, [LB]), SECRET, instance=b"instance" + server_id,
            sockets=[cast(UdpSocket, self.listener)], local=cast(Forwarder, self.slots),
            clock=lambda: self.now, wall=lambda: WALL,
        )  # fmt: skip
        self.delivered: list[tuple[bytes, FourTuple, int]] = []
        self.forwarder.deliver = lambda *parts: self.delivered.append(parts)
        self.inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inbox.bind(("127.0.0.1", 0))
        self.inbox.settimeout(5)
        self.path = self.listener.path(CLIENT, kernel.pktinfo("198.51.100.1"))

    def knows(self, *others: tuple[bytes, Host]) -> None:
        self.forwarder.use_peers({sid: other.inbox.getsockname() for sid, other in others})

    def receive(self, data: bytes, ecn: int = 0) -> bool:
        return self.forwarder.forward(data, self.path, ecn)

    def message(self) -> bytes:
        return self.inbox.recv(65536)

    def close(self) -> None:
        self.forwarder.close()
        self.inbox.close()


@pytest.fixture
def hosts() -> Any:
    here, there = Host(HERE), Host(THERE)
    here.knows((THERE, there))
    there.knows((HERE, here))
    yield here, there
    here.close()
    there.close()


def short(server_id: bytes, lb: QuicLb = LB) -> bytes:
    cid = QuicLbLayout(lb, server_id, SECRET).make(3, bytes(range(8)))
    return b"\x43" + cid + b"payload of a packet that is long enough"


def initial(cid: bytes) -> bytes:
    return b"\xc0\0\0\0\1" + bytes((len(cid),)) + cid + bytes(1200)


def test_what_this_host_owns_is_a_matter_of_its_workers(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    assert here.receive(short(HERE)) is False
    assert here.slots.seen == [short(HERE)]


def test_what_another_host_owns_is_forwarded_with_its_client_and_mark(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    assert here.receive(short(THERE), ecn=2) is True
    message = there.message()
    body = FleetOpener(SECRET, LENGTH, lambda: WALL).open(message)
    assert isinstance(body, Forward)
    assert (body.data, body.remote, body.ecn) == (short(THERE), CLIENT, 2)
    assert (body.host, body.port, body.via) == ("198.51.100.1", 443, HERE)
    # The kernel at the other host steers it as it steers the datagram itself.
    codec = ConnectionIdCodec(QuicLbLayout(LB, THERE, b"the slot mask of the other host"))
    assert codec.slot_of(message) == codec.slot_of(short(THERE))


def test_a_new_client_stays_wherever_its_random_id_seems_to_lead(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    assert here.receive(initial(b"random id of a client"[:18])) is False
    assert here.receive(initial(short(NOWHERE)[1 : 1 + LENGTH])) is False


def test_without_its_owner_a_connection_is_reset_once_peers_had_time_to_answer() -> None:
    here = Host()
    assert here.receive(short(THERE)) is True, "dropped: the other host may be up"
    here.now += FLEET_PEER_TIMEOUT
    assert here.receive(short(THERE)) is False
    here.close()


def test_an_id_of_an_unknown_configuration_is_never_reset(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    here.now += FLEET_PEER_TIMEOUT
    newer = QuicLb(2, 2, 8, b"K" * 16)
    assert here.receive(short(THERE, newer)) is True
    assert here.forwarder.counters["dropped_server_id"] == 1
    here.forwarder.use_configurations([newer])
    for lb in (newer, LB):
        assert here.receive(short(THERE, lb)) is True
        assert there.message(), "both configurations decode"


def test_a_datagram_is_forwarded_once(hosts: tuple[Host, Host]) -> None:
    """Two hosts that disagree about the owner do not play it back and forth."""
    here, there = hosts
    here.receive(short(THERE))
    message = there.message()
    lost = Host(NOWHERE)  # believes that the connection is somebody else's
    lost.knows((THERE, there))
    lost.forwarder.deliver = lambda data, path, ecn: lost.delivered.append(
        (data, path, lost.forwarder.forward(data, path, ecn))
    )
    assert lost.receive(message) is True
    ((_, _, taken),) = lost.delivered
    assert taken is True
    assert lost.forwarder.counters["fleet_dropped_hops"] == 1
    lost.close()


def test_a_host_with_the_clients_destination_answers_directly(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    here.path = here.listener.path(CLIENT, kernel.pktinfo("127.0.0.1"))
    here.receive(short(THERE), ecn=1)
    assert there.receive(there.message()) is True
    ((data, path, ecn),) = there.delivered
    assert (data, ecn) == (short(THERE), 1)
    assert path == there.listener.path(CLIENT, kernel.pktinfo("127.0.0.1"))


def test_a_host_with_the_clients_destination_answers_directly_over_ipv6() -> None:
    listener = FleetListener("::", 443)
    listener.family = socket.AF_INET6
    here, there = Host(), Host(THERE, listener=listener)
    here.knows((THERE, there))
    client = ("2001:db8::7", 40000, 0, 0)
    path = FourTuple(client, kernel.pktinfo("::1"), cast(UdpSocket, FleetListener("::", 443)))
    here.forwarder.forward(short(THERE), path, 0)
    assert there.receive(there.message()) is True
    ((_, arrived, _),) = there.delivered
    assert arrived == listener.path(client, kernel.pktinfo("::1"))
    here.close()
    there.close()


def test_another_host_answers_through_the_one_that_has_the_destination(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    here.receive(short(THERE))
    there.receive(there.message())
    ((_, path, _),) = there.delivered
    assert path.remote == CLIENT
    path.socket.send([b"\x41" + b"answer"], path, 2)
    path.socket.send_segments(b"\x41" + bytes(99) + b"\x41" + bytes(9), 100, path)
    for _ in range(3):
        assert here.receive(here.message()) is True
    assert [len(data) for data, _ in here.listener.sent] == [7, 100, 10]
    assert {sent for _, sent in here.listener.sent} == {here.path}
    # The next datagram of the client has the same path: nothing is validated again.
    here.receive(short(THERE))
    there.receive(there.message())
    assert there.delivered[1][1] is path


def test_a_peer_that_is_down_gets_no_answers(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    here.receive(short(THERE))
    there.receive(there.message())
    there.forwarder.use_peers({})
    path = there.delivered[0][1]
    path.socket.send([b"answer"], path)
    assert there.forwarder.counters["fleet_dropped_peer"] == 1


def test_a_probe_is_answered_from_where_it_arrived(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    probe = there.forwarder._sealer.seal(Kind.PROBE, b"\xff" * LENGTH, Probe(WALL, b"question"))
    assert here.receive(probe) is True
    ((answer, path),) = here.listener.sent
    assert path is here.path
    body = FleetOpener(SECRET, LENGTH, lambda: WALL).open(answer)
    assert body == Present(WALL, b"question", HERE, b"instance" + HERE)


@pytest.mark.parametrize("data", [b"\1garbage", b"\1" + bytes(100), b"\x3f" + bytes(100)])
def test_what_only_looks_like_a_message_is_left_to_the_endpoint(
    hosts: tuple[Host, Host], data: bytes
) -> None:
    here, _ = hosts
    assert here.receive(data) is False
    assert here.forwarder.counters["fleet_refused"] == 1


def test_a_replayed_message_delivers_nothing(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    here.receive(short(THERE))
    message = there.message()
    assert there.receive(message) is True
    assert there.receive(message) is False
    assert len(there.delivered) == 1


def test_messages_for_another_worker_are_handed_on_unopened() -> None:
    here, there = Host(slots=Slots(takes=True)), Host(THERE)
    there.knows((HERE, here))
    there.receive(short(HERE))
    message = here.message()
    assert here.receive(message) is True
    assert here.slots.seen == [message]
    assert not here.delivered
    here.close()
    there.close()


def test_forwarding_is_bounded_in_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicedge.udp.fleet.FLEET_DATAGRAMS_PER_SECOND", 3.0)
    here, there = Host(), Host(THERE)
    here.knows((THERE, there))
    for _ in range(5):
        assert here.receive(short(THERE)) is True
    assert here.forwarder.counters["fleet_forwarded"] == 3
    assert here.forwarder.counters["fleet_dropped_rate"] == 2
    here.now += 1
    here.receive(short(THERE))
    assert here.forwarder.counters["fleet_forwarded"] == 4
    here.close()
    there.close()


def test_a_relay_to_no_listener_of_that_family_is_refused(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    relay = Relay(WALL, 0, "2001:db8::1", 443, ("2001:db8::7", 1, 0, 0), b"data")
    message = there.forwarder._sealer.seal(Kind.RELAY, b"\xff" * LENGTH, relay)
    assert here.receive(message) is True
    assert not here.listener.sent
    assert here.forwarder.counters["fleet_refused"] == 1


def test_a_relay_from_no_address_leaves_from_any(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    relay = Relay(WALL, 0, "", 443, CLIENT, b"data")
    assert here.receive(there.forwarder._sealer.seal(Kind.RELAY, b"\xff" * LENGTH, relay)) is True
    assert here.listener.sent == [(b"data", here.listener.path(CLIENT, b""))]
