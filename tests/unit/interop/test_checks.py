"""Each check passes what is right and names what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interop.runner.checks import common, handshake, paths, resumption, transport
from interop.runner.evidence import CheckFailed, CheckUnsupported
from interop.runner.trace import Kind
from tests.support.fake_trace import SERVER, FakeEvidence, quic

V1, V2 = "0x00000001", "0x6b3343cf"
INITIAL, HANDSHAKE, SHORT = Kind.INITIAL, Kind.HANDSHAKE, Kind.SHORT


@pytest.fixture
def seen(tmp_path: Path) -> Any:
    (tmp_path / "www").mkdir()
    (tmp_path / "downloads").mkdir()
    return FakeEvidence(tmp_path)


def refused(check: Any, evidence: Any, says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        check(evidence)


def put(evidence: Any, name: str, offered: bytes | None, stored: bytes | None) -> None:
    if offered is not None:
        (evidence.www / name).write_bytes(offered)
    if stored is not None:
        (evidence.downloads / name).write_bytes(stored)


def test_files(seen: Any) -> None:
    put(seen, "a", b"abc", b"abc")
    common.files(seen)
    put(seen, "a", b"abc", b"abd")
    refused(common.files, seen, "other content")
    put(seen, "a", b"abc", b"ab")
    refused(common.files, seen, "2 bytes in place of 3")
    put(seen, "a", b"abc", b"abc")
    put(seen, "b", None, b"")
    refused(common.files, seen, "1 files too many: b")
    put(seen, "c", b"", None)
    refused(common.files, seen, "1 of 2 files missing")


def test_key_log(seen: Any) -> None:
    with pytest.raises(CheckUnsupported):
        common.key_log(seen)


def test_handshakes_and_versions(seen: Any) -> None:
    refused(common.handshakes(1), seen, "0 handshakes in place of 1")
    refused(common.version_1, seen, "none")
    for _ in range(2):
        seen.right.server(quic(INITIAL, quic__scid="aa:01", quic__version=V1))
    common.handshakes(1)(seen)
    common.version_1(seen)
    seen.right.server(quic(INITIAL, quic__scid="bb", quic__version=V2))
    refused(common.handshakes(1), seen, "2 handshakes in place of 1")
    common.handshakes(2)(seen)
    refused(common.version_1, seen, "0x6b3343cf")


def test_no_retry(seen: Any) -> None:
    common.no_retry(seen)
    seen.left.server(quic(Kind.RETRY, quic__retry_token="00"))
    refused(common.no_retry, seen, "sent a Retry")


def test_repeated_client_hello(seen: Any) -> None:
    seen.left.client(quic(INITIAL, tls__handshake__type="1"))
    refused(handshake.repeated_client_hello, seen, "1 ClientHello")
    seen.left.client(quic(INITIAL, quic__retransmission=""))
    handshake.repeated_client_hello(seen)


def test_only_chacha20(seen: Any) -> None:
    refused(handshake.only_chacha20, seen, "none")
    seen.left.client(quic(INITIAL, tls__handshake__ciphersuite="0x1303"))
    handshake.only_chacha20(seen)
    seen.left.client(quic(INITIAL, tls__handshake__ciphersuite=["0x1303", "0x1301"]))
    refused(handshake.only_chacha20, seen, "0x1301")


def retried(seen: Any, token: str, number: str) -> None:
    seen.left.client(quic(INITIAL, quic__packet_number="4", quic__token_length="0"))
    seen.left.server(quic(Kind.RETRY, quic__retry_token="ab:cd"))
    seen.left.client(
        quic(INITIAL, quic__packet_number=number, quic__token_length="2", quic__token=token)
    )


def test_retry_obeyed(seen: Any) -> None:
    refused(handshake.retry_obeyed, seen, "no Retry")
    retried(seen, "ab:cd", "5")
    handshake.retry_obeyed(seen)


@pytest.mark.parametrize(
    ("token", "number", "says"),
    [("ab:cd", "0", "reset its packet number"), ("ee", "5", "in no Retry")],
)
def test_retry_disobeyed(seen: Any, token: str, number: str, says: str) -> None:
    retried(seen, token, number)
    refused(handshake.retry_obeyed, seen, says)


def test_retry_ignored(seen: Any) -> None:
    seen.left.server(quic(Kind.RETRY, quic__retry_token="ab:cd"))
    seen.left.client(quic(INITIAL, quic__packet_number="0", quic__token_length="0"))
    refused(handshake.retry_obeyed, seen, "no Initial of the client bears the token")


def test_version_2(seen: Any) -> None:
    refused(handshake.version_2_negotiated, seen, "client")
    seen.left.client(quic(INITIAL, quic__version=V1))
    refused(handshake.version_2_negotiated, seen, "no Initial of the server")
    seen.right.server(quic(INITIAL, quic__version=V2), quic(HANDSHAKE, quic__version=V2))
    seen.left.client(quic(HANDSHAKE, quic__version=V1))
    refused(handshake.version_2_negotiated, seen, "Handshake packets of the client")
    seen.left.items.pop()
    seen.left.client(quic(HANDSHAKE, quic__version=V2))
    handshake.version_2_negotiated(seen)


def test_version_negotiation(seen: Any) -> None:
    seen.left.client(quic(Kind.UNKNOWN, quic__dcid="aa:bb"))
    refused(handshake.version_negotiation, seen, "sent no Version")
    seen.left.server(quic(Kind.VERSION_NEGOTIATION, quic__scid="cc"))
    refused(handshake.version_negotiation, seen, "echoes")
    seen.left.server(quic(Kind.VERSION_NEGOTIATION, quic__scid="aa:bb"))
    handshake.version_negotiation(seen)


def test_resumed(seen: Any) -> None:
    refused(resumption.resumed, seen, "no Handshake")
    seen.left.server(quic(HANDSHAKE, quic__scid="01", tls__handshake__type=["8", "11"]))
    refused(resumption.resumed, seen, "one connection")
    seen.left.server(quic(HANDSHAKE, quic__scid="02", tls__handshake__type="8"))
    resumption.resumed(seen)
    seen.left.server(quic(HANDSHAKE, quic__scid="02", tls__handshake__type="11"))
    refused(resumption.resumed, seen, "was not resumed")
    seen.left.server(quic(HANDSHAKE, quic__scid="03"))
    refused(resumption.resumed, seen, "more than two")


def test_early_data(seen: Any) -> None:
    put(seen, "n" * 100, b"", b"")
    refused(resumption.early_data, seen, "no 0-RTT")
    seen.left.client(quic(Kind.EARLY, payload=10), quic(SHORT, payload=50))
    resumption.early_data(seen)
    seen.left.client(quic(SHORT, payload=1))
    refused(resumption.early_data, seen, "51 bytes of 1-RTT from the client, 50 allowed")


NEW = ("193.167.0.100", 6000)


def test_new_paths(seen: Any) -> None:
    seen.right.server(quic(SHORT))
    refused(paths.new_paths_validated, seen, "one path only")
    seen.right.server(quic(SHORT, quic__path_challenge__data="ab"), to=NEW)
    refused(paths.new_paths_validated, seen, "1 PATH_CHALLENGE of 1 not answered")
    seen.left.client(quic(SHORT, quic__path_response__data="ab"))
    paths.new_paths_validated(seen)


def test_a_challenge_in_the_second_packet_is_too_late(seen: Any) -> None:
    seen.right.server(quic(SHORT))
    seen.right.server(quic(SHORT, quic__path_response__data="cd"), to=NEW)
    seen.right.server(quic(SHORT, quic__path_challenge__data="ab"), to=NEW)
    seen.left.client(quic(SHORT, quic__path_response__data="ab"))
    refused(paths.new_paths_validated, seen, "no PATH_CHALLENGE .* port 6000 .frame 2")


def test_several_client_addresses(seen: Any) -> None:
    seen.right.client(quic(SHORT)).client(quic(SHORT), source=NEW)
    refused(paths.several_client_addresses, seen, "one address")
    seen.right.client(quic(SHORT), source=("193.167.0.7", 1))
    paths.several_client_addresses(seen)


def test_new_connection_ids(seen: Any) -> None:
    preferred = (SERVER[0], 4433)
    seen.left.client(quic(SHORT, quic__dcid="01"))
    refused(paths.new_connection_ids, seen, "one path only")
    seen.left.client(quic(SHORT, quic__dcid="01"), to=preferred)
    refused(paths.new_connection_ids, seen, "old connection ID")
    seen.left.items.pop()
    seen.left.client(quic(SHORT, quic__dcid="02"), to=preferred)
    paths.new_connection_ids(seen)


def test_stream_limit(seen: Any) -> None:
    field = "tls__quic__parameter__initial_max_streams_bidi"
    refused(transport.stream_limit, seen, "not to be seen")
    seen.left.server(quic(HANDSHAKE, **{field: "1000"}))
    transport.stream_limit(seen)
    seen.left.server(quic(HANDSHAKE, **{field: "1001"}))
    refused(transport.stream_limit, seen, "1001")


@pytest.mark.parametrize("true", ["1", "True"])
def test_key_update(seen: Any, true: str) -> None:
    seen.left.client(quic(SHORT, quic__key_phase="0"))
    refused(transport.key_updated, seen, "from the client")
    seen.left.client(quic(SHORT, quic__key_phase=true))
    refused(transport.key_updated, seen, "from the server")
    seen.right.server(quic(SHORT, quic__key_phase=true))
    transport.key_updated(seen)


def test_ecn(seen: Any) -> None:
    counted = quic(SHORT, quic__ack__ect0_count="1")
    seen.left.client(quic(SHORT))
    refused(transport.ecn_used, seen, "client marked no packet")
    seen.left.client(quic(SHORT), ecn=2)
    refused(transport.ecn_used, seen, "no ACK of the client")
    seen.left.client(counted, ecn=2)
    refused(transport.ecn_used, seen, "server marked no packet")
    seen.right.server(counted, ecn=1)
    transport.ecn_used(seen)
    seen.right.server(counted, ecn=3)
    refused(transport.ecn_used, seen, "server sent packets marked CE")


def long_chain(seen: Any, *sizes: int) -> None:
    seen.right.client(quic(INITIAL), size=1208)
    for size in sizes:
        crypto = quic(HANDSHAKE, quic__crypto__offset="7000", quic__crypto__length="600")
        seen.right.server(crypto, size=size)


def test_amplification_within_bounds(seen: Any) -> None:
    long_chain(seen, 1208, 1208, 1208)
    refused(transport.no_amplification, seen, "no Handshake packet of the client")
    seen.right.client(quic(HANDSHAKE))
    seen.right.server(quic(SHORT), size=60_000)
    transport.no_amplification(seen)


def test_fourfold_amplification(seen: Any) -> None:
    long_chain(seen, 1208, 1208, 1208, 1208)
    seen.right.client(quic(HANDSHAKE))
    refused(transport.no_amplification, seen, "frame 5: the server sends 1200 bytes where 1200")


def test_amplification_wants_the_whole_chain(seen: Any) -> None:
    seen.right.client(quic(INITIAL)).client(quic(HANDSHAKE))
    refused(transport.no_amplification, seen, "did not send the whole chain")


def test_amplification_refuses_version_negotiation(seen: Any) -> None:
    long_chain(seen, 1208)
    seen.right.server(quic(Kind.VERSION_NEGOTIATION))
    refused(transport.no_amplification, seen, "unexpected Version Negotiation")


def test_only_ipv6(seen: Any) -> None:
    transport.only_ipv6(seen)
    seen.right.server(quic(SHORT))
    refused(transport.only_ipv6, seen, "over IPv4")
