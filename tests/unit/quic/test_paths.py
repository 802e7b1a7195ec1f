"""Network paths: validation, amplification, and which one gives way (RFC 9000 sections 8 and 9)."""

from __future__ import annotations

from quicedge.config.limits import (
    AMPLIFICATION_FACTOR,
    MAX_LOCAL_CHALLENGES,
    MAX_PATHS,
    MAX_REMOTE_CHALLENGES,
)
from quicedge.quic.connection.connection_ids import RemoteConnectionId
from quicedge.quic.connection.paths import Path, Paths


def paths(*addresses: str, validated: str = "") -> Paths:
    known = Paths()
    for address in addresses:
        known.add(Path(address, validated=address in validated))
    return known


def test_an_unvalidated_path_sends_three_times_what_came() -> None:
    path = Path("a")
    path.bytes_received = 1200
    path.bytes_sent = 1000
    assert path.room() == AMPLIFICATION_FACTOR * 1200 - 1000 == 2600


def test_challenges_of_the_peer_wait_within_a_bound() -> None:
    path = Path("a")
    for number in range(MAX_REMOTE_CHALLENGES + 10):
        path.receive_challenge(number.to_bytes(8, "big"))
    assert len(path.responses) == MAX_REMOTE_CHALLENGES
    assert path.responses[0] == bytes(8)


def test_a_response_validates_the_path_that_was_challenged() -> None:
    known = paths("a", "b", validated="a")
    path = known.known[1]
    known.begin_validation(path, 5.0)
    path.challenge_due = False
    path.note_challenge(b"12345678")
    assert known.receive_response(b"87654321") is None
    assert known.receive_response(b"12345678") is path
    assert path.is_validated
    assert path.validation_deadline is None
    assert not path.has_frames
    assert known.receive_response(b"12345678") is None


def test_a_challenge_that_was_delivered_without_an_answer_is_sent_again() -> None:
    path = Path("a")
    path.on_challenge_delivery(True)
    assert not path.challenge_due  # nobody validates it
    path.validation_deadline = 5.0
    path.on_challenge_delivery(True)
    assert path.challenge_due


def test_a_path_that_does_not_answer_gives_way_to_the_validated_one_used_last() -> None:
    known = paths("new", "unproven", "old", "older", validated="old older")
    fallback = known.give_up_active()
    assert fallback is not None
    assert fallback.address == "old"
    assert [path.address for path in known.known] == ["old", "unproven", "older"]


def test_without_a_validated_path_there_is_no_way_back() -> None:
    known = paths("new", "unproven")
    assert known.give_up_active() is None


def test_unvalidated_paths_make_room_first_and_the_one_in_use_never() -> None:
    addresses = [str(number) for number in range(MAX_PATHS)]
    known = paths(*addresses, validated=addresses[1])
    for number in range(20):
        known.add(Path(f"spoofed {number}"))
    assert len(known.known) == MAX_PATHS
    assert [path.address for path in known.known[:2]] == addresses[:2]


def test_ids_that_paths_hold_are_released_below_a_limit() -> None:
    known = paths("a", "b")
    held = RemoteConnectionId(b"id", 3)
    known.known[1].remote_cid = held
    assert known.reserved_ids(3) == [held]
    assert known.reserved_ids(4) == [held]
    assert known.reserved_ids(0) == []


def test_a_change_of_the_port_is_the_same_host() -> None:
    assert Path(("192.0.2.1", 1)).host() == Path(("192.0.2.1", 2)).host()
    assert Path(("192.0.2.1", 1)).host() != Path(("192.0.2.2", 1)).host()


def test_challenges_of_ours_that_wait_for_an_answer_are_bounded() -> None:
    path = Path("a")
    for number in range(MAX_LOCAL_CHALLENGES + 3):
        path.note_challenge(bytes((number,)) * 8)
    assert len(path.challenges) == MAX_LOCAL_CHALLENGES
    assert path.challenges[-1] == bytes((MAX_LOCAL_CHALLENGES + 2,)) * 8
