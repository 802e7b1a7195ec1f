"""Connection IDs of both sides (RFC 9000 section 5.1)."""

from __future__ import annotations

from itertools import count

import pytest

from quicedge.config.limits import ACTIVE_CONNECTION_IDS, MAX_RETIRED_CONNECTION_IDS
from quicedge.quic.connection.connection_ids import (
    LocalConnectionIds,
    RemoteConnectionId,
    RemoteConnectionIds,
)
from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import ConnectionIdIssued, ConnectionIdRetired
from quicedge.quic.frames import Epoch, NewConnectionId


class Source:
    length = 8

    def __init__(self) -> None:
        self._numbers = count()

    def new(self) -> bytes:
        return next(self._numbers).to_bytes(8, "big")

    def reset_token(self, connection_id: bytes) -> bytes:
        return connection_id * 2


def draft(room: int = 1000) -> Draft:
    return Draft(Epoch.ONE_RTT, room)


def events_of(queue: EventQueue) -> list[object]:
    return list(iter(queue.pop, None))


def local(peer_limit: int = 8) -> tuple[LocalConnectionIds, EventQueue]:
    events = EventQueue()
    ids = LocalConnectionIds(Source(), events)
    ids.peer_limit = peer_limit
    ids.replenish()
    return ids, events


def test_as_many_ids_are_issued_as_the_peer_takes() -> None:
    ids, events = local(peer_limit=3)
    assert len(ids.active) == 3
    assert events_of(events) == [
        ConnectionIdIssued(connection_id=cid) for cid in list(ids.active)[1:]
    ]
    ids, _ = local(peer_limit=1000)
    assert len(ids.active) == ACTIVE_CONNECTION_IDS


def test_an_id_that_found_no_room_is_announced_later() -> None:
    ids, _ = local(peer_limit=3)
    small = draft(room=40)
    assert not ids.write_frames(small)
    assert len(small.parts) == 1
    assert ids.has_frames
    rest = draft()
    assert ids.write_frames(rest)
    assert len(rest.parts) == 1
    assert not ids.has_frames


def test_an_announcement_that_was_lost_is_made_again_unless_the_id_is_retired() -> None:
    ids, _ = local(peer_limit=3)
    packet = draft()
    ids.write_frames(packet)
    ids.receive_retire(1, ids.initial)
    after = draft()
    ids.write_frames(after)  # the one issued in its place
    for delivery, args in packet.deliveries:
        delivery(False, *args)
    again = draft()
    ids.write_frames(again)
    assert [args for _, args in again.deliveries] == [(2,)]


def test_a_retired_id_is_replaced_and_routed_no_more() -> None:
    ids, events = local(peer_limit=3)
    events_of(events)
    retired = list(ids.active)[1]
    ids.receive_retire(1, ids.initial)
    assert retired not in ids.active
    assert len(ids.active) == 3
    assert events_of(events) == [
        ConnectionIdRetired(connection_id=retired),
        ConnectionIdIssued(connection_id=list(ids.active)[-1]),
    ]
    ids.receive_retire(1, ids.initial)  # the same frame again
    assert events_of(events) == []


@pytest.mark.parametrize("sequence", [0, 40], ids=["in use", "never issued"])
def test_some_ids_cannot_be_retired(sequence: int) -> None:
    ids, _ = local()
    with pytest.raises(TransportError) as caught:
        ids.receive_retire(sequence, ids.initial)
    assert caught.value.code == ErrorCode.PROTOCOL_VIOLATION


def new_id(sequence: int, retire_prior_to: int = 0, cid: bytes | None = None) -> NewConnectionId:
    cid = cid if cid is not None else bytes((sequence,)) * 8
    return NewConnectionId(sequence, retire_prior_to, cid, cid * 2)


def nothing_reserved(limit: int) -> list[RemoteConnectionId]:
    return []


def remote(*sequences: int) -> RemoteConnectionIds:
    ids = RemoteConnectionIds(b"original")
    ids.adopt(b"chosen!!")
    for sequence in sequences:
        ids.receive_new(new_id(sequence), nothing_reserved)
    return ids


def retired(ids: RemoteConnectionIds) -> list[int]:
    packet = draft()
    ids.write_frames(packet)
    return [args[0] for _, args in packet.deliveries]


def test_a_change_takes_the_oldest_spare_id_retires_the_other_and_resets_the_spin_bit() -> None:
    ids = remote(1, 2)
    ids.spin = True
    assert ids.change()
    assert ids.current.sequence == 1
    assert not ids.spin
    assert retired(ids) == [0]


def test_without_a_spare_id_there_is_no_change() -> None:
    ids = remote()
    ids.spin = True
    assert not ids.change()
    assert ids.current.cid == b"chosen!!"
    assert ids.spin


def test_retire_prior_to_takes_the_id_in_use_and_spare_ones() -> None:
    ids = remote(1, 2)
    ids.receive_new(new_id(3, retire_prior_to=2), nothing_reserved)
    assert ids.current.sequence == 2
    assert [spare.sequence for spare in ids.spare] == [3]
    assert sorted(retired(ids)) == [0, 1]


def test_an_id_below_the_limit_is_retired_at_once_and_once() -> None:
    ids = remote(1, 2)
    ids.receive_new(new_id(5, retire_prior_to=2), nothing_reserved)
    retired(ids)
    assert ids.current.sequence == 2
    ids.receive_new(new_id(6, retire_prior_to=4), nothing_reserved)
    assert sorted(retired(ids)) == [2]
    ids.receive_new(new_id(3), nothing_reserved)
    assert retired(ids) == [3]


def test_the_same_frame_again_changes_nothing() -> None:
    ids = remote(1)
    ids.receive_new(new_id(1), nothing_reserved)
    assert [spare.sequence for spare in ids.spare] == [1]


@pytest.mark.parametrize(
    "frame",
    [
        new_id(1, cid=b"another!"),
        new_id(2, cid=bytes((1,)) * 8),
        NewConnectionId(1, 0, bytes((1,)) * 8, b"another token..."),
    ],
    ids=["number", "ID", "token"],
)
def test_an_id_or_a_number_that_is_used_again_is_a_violation(frame: NewConnectionId) -> None:
    ids = remote(1)
    with pytest.raises(TransportError) as caught:
        ids.receive_new(frame, nothing_reserved)
    assert caught.value.code == ErrorCode.PROTOCOL_VIOLATION


def test_more_ids_than_we_take_are_an_error() -> None:
    ids = remote(*range(1, ACTIVE_CONNECTION_IDS))
    with pytest.raises(TransportError) as caught:
        ids.receive_new(new_id(ACTIVE_CONNECTION_IDS), nothing_reserved)
    assert caught.value.code == ErrorCode.CONNECTION_ID_LIMIT_ERROR


def test_retirements_that_the_peer_does_not_acknowledge_are_bounded() -> None:
    ids = remote()
    for sequence in range(1, MAX_RETIRED_CONNECTION_IDS + 1):
        ids.receive_new(new_id(sequence, retire_prior_to=sequence), nothing_reserved)
    assert ids.waiting == MAX_RETIRED_CONNECTION_IDS
    last = MAX_RETIRED_CONNECTION_IDS + 1
    with pytest.raises(TransportError) as caught:
        ids.receive_new(new_id(last, retire_prior_to=last), nothing_reserved)
    assert caught.value.code == ErrorCode.CONNECTION_ID_LIMIT_ERROR


def test_a_retirement_that_was_lost_is_sent_again() -> None:
    ids = remote(1)
    ids.change()
    packet = draft()
    ids.write_frames(packet)
    assert ids.waiting == 0
    for delivery, args in packet.deliveries:
        delivery(False, *args)
    assert retired(ids) == [0]


def test_a_stateless_reset_bears_the_token_of_the_id_in_use() -> None:
    ids = remote(1)
    ids.use_token(b"t" * 16)
    assert ids.is_stateless_reset(b"\x40" + bytes(30) + b"t" * 16)
    assert not ids.is_stateless_reset(b"\xc0" + bytes(30) + b"t" * 16)  # a long header
    assert not ids.is_stateless_reset(b"\x40" + b"t" * 16)  # too short
    assert not ids.is_stateless_reset(b"\x40" + bytes(46))
    ids.change()
    assert not ids.is_stateless_reset(b"\x40" + bytes(30) + b"t" * 16)
