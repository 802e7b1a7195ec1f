"""Which connection `quicedge qlog tail` follows."""

from __future__ import annotations

from typing import Any

import pytest

from quicedge.cli.adminclient import AdminError
from quicedge.cli.qlogtail import connection_id, find_connection


class Api:
    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.asked = ""

    def get(self, path: str) -> Any:
        self.asked = path
        return {"total": len(self.ids), "connections": [{"id": item} for item in self.ids[:5]]}


@pytest.mark.parametrize(
    "pasted",
    ["1a2b3c4d5e6f7081", "conn=1a2b3c4d/8", "1a2b3c4d/8", " 1A2B3C4D ", "conn=1a2b3c4d"],
)
def test_an_id_is_taken_as_logs_and_top_print_it(pasted: str) -> None:
    api = Api("1a2b3c4d5e6f7081")
    assert find_connection(api, pasted) == "1a2b3c4d5e6f7081"  # type: ignore[arg-type]
    assert f"cid={connection_id(pasted)}&" in api.asked
    assert "1a2b3c4d5e6f7081".startswith(connection_id(pasted))


def test_a_whole_id_is_meant_even_when_another_begins_with_it() -> None:
    assert find_connection(Api("1a2b3c", "1a2b3c4d"), "1a2b3c") == "1a2b3c"  # type: ignore[arg-type]


@pytest.mark.parametrize(("ids", "pasted", "says"), [
    ((), "1a2b/4", "no live connection has an ID starting with 1a2b"),
    (("1a2b00", "1a2b01"), "1a2b", "several connections match 1a2b: 1a2b00, 1a2b01"),
    (("1a0", "1a1", "1a2", "1a3", "1a4", "1a5"), "1a", "1a4, ..."),
    ((), "conn=", "is not a connection ID"),
    ((), "localhost", "'localhost' is not a connection ID"),
])  # fmt: skip
def test_what_cannot_be_followed_is_explained(ids: Any, pasted: str, says: str) -> None:
    with pytest.raises(AdminError) as error:
        find_connection(Api(*ids), pasted)  # type: ignore[arg-type]
    assert says in str(error.value)
