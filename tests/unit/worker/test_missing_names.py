"""Names without a certificate, as a worker reports them."""

from __future__ import annotations

from typing import Any

import pytest

from quicedge.config.acmelimits import (
    ON_DEMAND_REFUSALS,
    ON_DEMAND_REFUSED_FOR,
    ON_DEMAND_REPORTED,
)
from quicedge.config.schema import Acme, Config, OnDemand, Route, Tls
from quicedge.worker.missing_names import MissingNames


class Reports:
    def __init__(self, on_demand: bool = True) -> None:
        self.now = 0.0
        self.sent: list[list[str]] = []
        self.later: list[Any] = []
        self.names = MissingNames(config(on_demand), self, lambda: self.now)  # type: ignore[arg-type]
        self.names.send = self.sent.append

    def call_later(self, after: float, call: Any) -> None:
        self.later.append(call)

    def flush(self) -> None:
        later, self.later = self.later, []
        for call in later:
            call()


def config(on_demand: bool = True) -> Config:
    demand = OnDemand(ask="http://127.0.0.1/") if on_demand else None
    return Config(
        tls=Tls(acme=Acme(agree_to_terms=True, on_demand=demand)),
        routes=[Route(upstream="app")],
    )


def test_names_are_reported_together_and_each_once() -> None:
    one = Reports()
    for name in ("b.example.com", "a.example.com", "A.example.com."):
        one.names.note(name)
    assert one.sent == []
    one.flush()
    assert one.sent == [["a.example.com", "b.example.com"]]


def test_reports_are_bounded() -> None:
    one = Reports()
    for n in range(1000):
        one.names.note(f"{n}.example.com")
    one.flush()
    assert [len(names) for names in one.sent] == [ON_DEMAND_REPORTED]


@pytest.mark.parametrize("name", ["localhost", "10.0.0.1", "a/../b.example.com", "x"])
def test_names_that_cannot_have_one_are_not_reported(name: str) -> None:
    one = Reports()
    one.names.note(name)
    assert (one.later, one.names.may_come(name)) == ([], False)


def test_without_on_demand_nothing_is_reported() -> None:
    one = Reports(on_demand=False)
    one.names.note("a.example.com")
    assert one.later == []


def test_a_refused_name_is_refused_for_a_while() -> None:
    one = Reports()
    one.names.refuse(["a.example.com"])
    assert not one.names.may_come("A.example.com")
    one.names.configure(config())
    assert not one.names.may_come("a.example.com"), "new certificates change nothing about it"
    one.now += ON_DEMAND_REFUSED_FOR
    assert one.names.may_come("a.example.com")


def test_what_is_remembered_is_bounded() -> None:
    one = Reports()
    for n in range(ON_DEMAND_REFUSALS + 50):
        one.names.refuse([f"{n}.example.com"])
    assert len(one.names._refused) == ON_DEMAND_REFUSALS
