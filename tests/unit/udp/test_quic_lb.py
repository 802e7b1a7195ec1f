"""Server IDs in connection IDs: the examples of the draft, and all lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.udp.quic_lb import QuicLb

KEY = "8f95f09245765f80256934e50c66207f"
VECTORS = [
    # Appendix B.1. The draft prints the second one without two zeros: 0x2a and 0x03 become 20a...3.
    (0, None, "c4605e", "4504cc4f", "07c4605e4504cc4f"),
    (1, None, "350d28b420", "03487d970b", "2a350d28b42003487d970b"),
    # Appendix B.2. The last one is printed with the first octet of config rotation 0.
    (0, KEY, "ed793a", "ee080dbf", "0720b1d07b359d3c"),
    (1, KEY, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2"),
    (2, KEY, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
    (3, KEY, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d",
     "725779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    # Section 5.4.2.4, the example of each step.
    (0, "fdf726a9893ec05c0632d3956680baf0", "31441a", "9c69c275", "0767947d29be054a"),
]  # fmt: skip


@pytest.mark.parametrize(("rotation", "key", "server_id", "nonce", "expected"), VECTORS)
def test_the_vectors_of_the_draft(
    rotation: int, key: str | None, server_id: str, nonce: str, expected: str
) -> None:
    sid, unique = bytes.fromhex(server_id), bytes.fromhex(nonce)
    lb = QuicLb(rotation, len(sid), len(unique), bytes.fromhex(key) if key else None)
    assert lb.encode(sid, unique).hex() == expected
    assert lb.decode(bytes.fromhex(expected)) == sid


@given(st.data())
def test_every_server_id_comes_back(data: st.DataObject) -> None:
    nonce_length = data.draw(st.integers(4, 18))
    server_id_length = data.draw(st.integers(1, 19 - nonce_length))
    key = data.draw(st.none() | st.binary(min_size=16, max_size=16))
    rotation, extra = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 1))
    sid = data.draw(st.binary(min_size=server_id_length, max_size=server_id_length))
    nonce = data.draw(st.binary(min_size=nonce_length, max_size=nonce_length))
    lb = QuicLb(rotation, server_id_length, nonce_length, key)
    cid = lb.encode(sid, nonce, extra)
    assert lb.decode(cid + bytes(extra)) == sid
    assert cid[0] >> 5 == rotation
    assert cid[0] & 0x1F == len(cid) - 1 + extra, "the length after the first octet"
    assert (cid[1:] == sid + nonce) is (key is None)


def test_ids_of_one_server_have_nothing_in_common_under_a_key() -> None:
    lb = QuicLb(0, 2, 8, bytes.fromhex(KEY))
    ids = [lb.encode(b"\0\1", number.to_bytes(8, "big")) for number in range(64)]
    for place in range(1, 11):
        assert len({cid[place] for cid in ids}) > 32


@pytest.mark.parametrize(("rotation", "server_id", "nonce"), [(7, 1, 4), (-1, 1, 4), (0, 0, 4),
                                                             (0, 1, 3), (0, 16, 4)])  # fmt: skip
def test_what_the_draft_forbids_is_refused(rotation: int, server_id: int, nonce: int) -> None:
    with pytest.raises(ValueError, match=r"server ID|config rotation"):
        QuicLb(rotation, server_id, nonce)


def test_a_server_id_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        QuicLb(0, 2, 4).encode(b"\1", bytes(4))
