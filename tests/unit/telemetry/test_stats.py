import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.telemetry.stats import (
    ConnectionQuery,
    ConnectionState,
    ConnectionStats,
    QueryError,
    check_query,
    first_rows,
    merge,
    select,
)


def _connection(id: str, **values) -> ConnectionStats:
    return ConnectionStats(id=id, worker=0, time=0.0, **values)


def _ids(connections, **query) -> list[str]:
    return [row.id for row in select(connections, ConnectionQuery(**query)).connections]


def test_a_record_survives_both_encodings() -> None:
    record = _connection("ab", smoothed_rtt=0.025, scids=["00"], packets_dropped={"duplicate": 1})
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(record), type=ConnectionStats) == record


def test_a_record_is_immutable() -> None:
    with pytest.raises(AttributeError):
        _connection("ab").state = "closed"  # type: ignore[misc]


ROWS = [
    _connection("aa", remote_address="192.0.2.1:4433", sni="a.example", created_at=1.0),
    _connection("bb", remote_address="192.0.2.2:4433", sni="B.example", created_at=3.0,
                state=ConnectionState.CONNECTED, smoothed_rtt=0.1),
    _connection("cc", remote_address="[2001:db8::1]:99", scids=["beef01"], created_at=2.0,
                smoothed_rtt=0.01),
]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["bb", "cc", "aa"]),
        ({"address": "192.0.2.1"}, ["aa"]),
        ({"address": "192.0.2.0/24"}, ["bb", "aa"]),
        ({"address": "192.0.2.2:4433"}, ["bb"]),
        ({"address": "192.0.2.2:4434"}, []),
        ({"address": "2001:db8::/32"}, ["cc"]),
        ({"address": "[2001:db8::1]"}, ["cc"]),
        ({"address": "[2001:DB8::1]:99"}, ["cc"]),
        ({"sni": "b.EXAMPLE"}, ["bb"]),
        ({"cid": "BEEF"}, ["cc"]),
        ({"cid": "a"}, ["aa"]),
        ({"state": ConnectionState.CONNECTED}, ["bb"]),
        ({"sort": "smoothed_rtt"}, ["cc", "bb", "aa"]),
        ({"sort": "-smoothed_rtt"}, ["bb", "cc", "aa"]),
        ({"sort": "id", "limit": 1, "offset": 1}, ["bb"]),
        ({"limit": 0}, []),
    ],
)
def test_selection(query, expected) -> None:
    assert _ids(ROWS, **query) == expected


def test_the_total_counts_all_that_match() -> None:
    assert select(ROWS, ConnectionQuery(limit=1)).total == 3


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"sort": "paths"}, "sort"),
        ({"sort": "-nothing"}, "sort"),
        ({"address": "example.com"}, "address"),
        ({"cid": "xyz"}, "cid"),
        ({"limit": 4000, "offset": 1}, "offset"),
    ],
)
def test_bad_queries_name_the_parameter(query, word) -> None:
    with pytest.raises(QueryError, match=word):
        check_query(ConnectionQuery(**query))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30),
    st.integers(0, 10),
    st.integers(0, 10),
    st.sampled_from(["created_at", "-created_at", "id", "-mtu"]),
)
def test_pages_merged_from_workers_are_the_pages_of_the_whole(rows, offset, limit, sort) -> None:
    whole = [
        _connection(f"{n:04x}", created_at=float(created), mtu=created or None)
        for n, (_, created) in enumerate(rows)
    ]
    query = ConnectionQuery(offset=offset, limit=limit, sort=sort)
    by_worker = [
        [row for row, (owner, _) in zip(whole, rows, strict=True) if owner == worker]
        for worker in range(4)
    ]
    pages = [select(mine, first_rows(query)) for mine in by_worker]
    assert merge(pages, query) == select(whole, query)
