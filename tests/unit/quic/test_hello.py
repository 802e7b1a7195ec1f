"""The glance at a ClientHello agrees with the full reading of it."""

from __future__ import annotations

from aioquic.buffer import Buffer
from aioquic.tls import ClientHello, OfferedPsks, pull_client_hello, push_client_hello
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.hello import glance

NAMES = st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True)


def hello(name: str | None, tickets: list[tuple[bytes, int]], session_id: bytes) -> bytes:
    buf = Buffer(capacity=16384)
    push_client_hello(
        buf,
        ClientHello(
            random=b"r" * 32,
            legacy_session_id=session_id,
            cipher_suites=[0x1301, 0x1302],
            legacy_compression_methods=[0],
            alpn_protocols=["h3"],
            key_share=[(29, b"k" * 32)],
            other_extensions=[(0x39, b"parameters")],
            pre_shared_key=OfferedPsks(tickets, [b"b" * 32]) if tickets else None,
            server_name=name,
            signature_algorithms=[0x0403],
            supported_groups=[29],
            supported_versions=[0x0304],
        ),
    )
    return buf.data


@given(
    st.none() | NAMES,
    st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.integers(0, 2**32 - 1)), max_size=2),
    st.binary(max_size=32),
)
def test_it_agrees_with_the_full_reading(
    name: str | None, tickets: list[tuple[bytes, int]], session_id: bytes
) -> None:
    message = hello(name, tickets, session_id)
    read = pull_client_hello(Buffer(data=message))
    seen = glance(message)
    assert seen.server_name == read.server_name == name
    assert seen.obfuscated_age == (tickets[0][1] if tickets else None)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_garbage_and_cut_hellos_raise_nothing(noise: bytes, cut: int) -> None:
    glance(noise)
    glance(hello("localhost", [(b"ticket", 5)], b"")[:cut] + noise)
