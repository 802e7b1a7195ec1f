"""Our reading of a ClientHello agrees with aioquic's, and says what is wrong with a bad one."""

from __future__ import annotations

import random

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.client_hello import read_client_hello
from tests.support.hellos import compare_with_aioquic, compare_with_openssl, mutated, read_alike

NAMES = st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True)
UINT16S = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20)
TICKETS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=200), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=3,
)
ONE_IDENTITY = b"\x00\x07\x00\x01t\x00\x00\x00\x05"


def encoded(hello: tls.ClientHello) -> bytes:
    buf = Buffer(capacity=16384)
    tls.push_client_hello(buf, hello)
    return buf.data


def sample(**changes: object) -> tls.ClientHello:
    fields: dict[str, object] = {
        "random": b"r" * 32,
        "legacy_session_id": b"",
        "cipher_suites": [0x1301, 0x1302],
        "legacy_compression_methods": [0],
        "alpn_protocols": ["h3"],
        "key_share": [(29, b"k" * 32)],
        "other_extensions": [(0x39, b"parameters")],
        "server_name": "localhost",
        "signature_algorithms": [0x0403],
        "supported_groups": [29],
        "supported_versions": [0x0304],
        **changes,
    }
    return tls.ClientHello(**fields)  # type: ignore[arg-type]


@given(
    st.builds(
        sample,
        random=st.binary(min_size=32, max_size=32),
        legacy_session_id=st.binary(max_size=32),
        cipher_suites=UINT16S,
        alpn_protocols=st.none() | st.lists(NAMES, min_size=1, max_size=4),
        early_data=st.booleans(),
        key_share=st.lists(
            st.tuples(st.integers(0, 0xFFFF), st.binary(min_size=1, max_size=80)),
            max_size=4,
            unique_by=lambda share: share[0],
        ),
        pre_shared_key=st.none()
        | TICKETS.map(lambda offered: tls.OfferedPsks(offered, [b"b" * 32] * len(offered))),
        psk_key_exchange_modes=st.none() | st.lists(st.integers(0, 255), min_size=1, max_size=3),
        server_name=st.none() | NAMES,
        signature_algorithms=UINT16S,
        supported_groups=UINT16S,
        supported_versions=UINT16S,
    )
)
def test_it_agrees_with_aioquic(written: tls.ClientHello) -> None:
    message = encoded(written)
    theirs = tls.pull_client_hello(Buffer(data=message))
    ours = read_client_hello(message)
    read_alike(ours, theirs, message)


@given(st.data())
def test_garbage_raises_an_alert_and_nothing_else(data: st.DataObject) -> None:
    psk = tls.OfferedPsks([(b"ticket", 5)], [b"b" * 32])
    good = bytearray(encoded(sample(pre_shared_key=psk, psk_key_exchange_modes=[1])))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        read_client_hello(bytes(good[:cut]) + data.draw(st.binary(max_size=40)))
    except tls.Alert:
        pass


@pytest.mark.parametrize(
    ("extensions", "alert"),
    [
        ([(0x39, b"a"), (0x39, b"b")], tls.AlertIllegalParameter),
        ([(0x10, b"\x00\x03\x02h3")], tls.AlertIllegalParameter),  # the second ALPN
        ([(0x2A, b"x")], tls.AlertDecodeError),  # early_data is empty
        ([(0x29, b"\x00\x00\x00\x00"), (0x39, b"")], tls.AlertIllegalParameter),  # PSK not last
        ([(0x29, b"\x00\x00\x00\x00")], tls.AlertDecodeError),  # no identity at all
        (
            [(0x29, ONE_IDENTITY + b"\x00\x00")],
            tls.AlertDecodeError,  # no binder
        ),
        (
            [(0x29, ONE_IDENTITY + b"\x00\x20\x1f" + b"b" * 31)],
            tls.AlertDecodeError,  # a binder shorter than any hash
        ),
        (
            [(0x29, b"\x00\x06\x00\x00\x00\x00\x00\x05\x00\x21\x20" + b"b" * 32)],
            tls.AlertDecodeError,  # an empty identity
        ),
        (
            [(0x29, ONE_IDENTITY + b"\x00\x42" + 2 * (b"\x20" + b"b" * 32))],
            tls.AlertIllegalParameter,  # two binders for one identity
        ),
        ([(0x2D, b"\x05\x01")], tls.AlertDecodeError),  # longer than its extension
        ([(0x2D, b"\x01\x01\x01")], tls.AlertDecodeError),  # shorter than its extension
        ([(0x2D, b"\x00")], tls.AlertDecodeError),  # empty
        ([(0x1B, b"\x00")], tls.AlertDecodeError),
        ([(0x1B, b"\x03\x00\x01\x00")], tls.AlertDecodeError),  # half an integer
    ],
)
def test_what_a_hello_may_not_hold(
    extensions: list[tuple[int, bytes]], alert: type[tls.Alert]
) -> None:
    with pytest.raises(alert):
        read_client_hello(encoded(sample(other_extensions=extensions)))


@pytest.mark.parametrize(
    ("name", "alert"),
    [
        (b"\x00\x04\x00\x00\x01\xe9", tls.AlertDecodeError),  # not ASCII
        (b"\x00\x05\x00\x00\x02a\x00", tls.AlertDecodeError),  # ends early for some
        (b"\x00\x04\x01\x00\x01a", tls.AlertIllegalParameter),  # no host name
        (b"\x00\x08\x00\x00\x01a\x00\x00\x01b", tls.AlertDecodeError),  # two names
        (b"\x00\x00", tls.AlertDecodeError),  # no name
        (b"\x00\x03\x00\x00\x00", tls.AlertDecodeError),  # an empty name
        (b"\x01\x03\x00\x01\x00" + b"a" * 256, tls.AlertDecodeError),  # longer than any name
    ],
)
def test_bad_server_names(name: bytes, alert: type[tls.Alert]) -> None:
    with pytest.raises(alert):
        read_client_hello(encoded(sample(server_name=None, other_extensions=[(0, name)])))


def test_the_longest_server_name() -> None:
    name = b"a" * 255
    extension = b"\x01\x02\x00\x00\xff" + name
    hello = read_client_hello(encoded(sample(server_name=None, other_extensions=[(0, extension)])))
    assert hello.server_name == name.decode()


@pytest.mark.parametrize(
    "member", ["alpn_protocols", "signature_algorithms", "supported_groups", "supported_versions"]
)
def test_lists_are_not_empty(member: str) -> None:
    with pytest.raises(tls.AlertDecodeError):
        read_client_hello(encoded(sample(**{member: []})))


def test_the_legacy_version_does_not_matter() -> None:
    message = encoded(sample())
    assert read_client_hello(message[:4] + b"\x03\x01" + message[6:]) == read_client_hello(message)
    with pytest.raises(tls.AlertProtocolVersion):
        read_client_hello(message[:4] + b"\x03\x00" + message[6:])


def test_bytes_behind_a_hello() -> None:
    message = encoded(sample())
    with pytest.raises(tls.AlertDecodeError):
        read_client_hello(message + b"\0")


@pytest.mark.parametrize("seed", range(8))
def test_openssl_accepts_and_refuses_the_same(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        compare_with_openssl(mutated(rng))


@pytest.mark.parametrize("seed", range(8))
def test_aioquic_reads_the_same_in_what_we_accept(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        compare_with_aioquic(mutated(rng))
