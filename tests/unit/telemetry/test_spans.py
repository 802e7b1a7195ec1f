"""Spans on their way out: which are recorded, what the SDK makes of them, and a queue that ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.schema import Otel
from quicedge.telemetry.otlp import SpanExport
from quicedge.telemetry.spans import Sampler, SamplerError, Span, is_disabled, sampler_of
from tests.support.peers import wait_until

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(number: int = 1, **changes: object) -> Span:
    fields: dict[str, object] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": "00f067aa0ba902b7",
        "remote_parent": True,
        "kind": "server",
        "name": "GET /",
        "start": 1000.0,
        "end": 1000.25,
        "attributes": {"http.request.method": "GET", "http.response.status_code": 200},
    }
    return Span(**{**fields, **changes})  # type: ignore[arg-type]


@given(st.floats(0, 1), st.integers(1, 2**128 - 1))
def test_a_share_of_traces_is_the_same_as_the_sdk_chooses(ratio: float, number: int) -> None:
    theirs = TraceIdRatioBased(ratio).should_sample(None, number, "").decision
    assert Sampler(ratio).samples(f"{number:032x}", None) is (theirs is Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(
    ("name", "argument", "fresh", "below_sampled", "below_unsampled"),
    [
        ("", "", True, True, False),
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("traceidratio", "0", False, False, False),
        ("traceidratio", "", True, True, True),
        ("parentbased_always_on", "", True, True, False),
        ("parentbased_always_off", "", False, True, False),
        ("parentbased_traceidratio", "0", False, True, False),
    ],
)
def test_the_environment_names_a_sampler(
    name: str, argument: str, fresh: bool, below_sampled: bool, below_unsampled: bool
) -> None:
    sampler = sampler_of(None, {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    found = [sampler.samples(TRACE, parent) for parent in (None, True, False)]
    assert found == [fresh, below_sampled, below_unsampled]


def test_the_configuration_outweighs_the_environment() -> None:
    assert sampler_of(0.25, {"OTEL_TRACES_SAMPLER": "always_off"}) == Sampler(0.25)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_SAMPLER": "some"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
    ],
)
def test_a_sampler_that_there_is_not(environment: dict[str, str]) -> None:
    with pytest.raises(SamplerError, match="OTEL_TRACES_SAMPLER"):
        sampler_of(None, environment)


def test_the_environment_switches_spans_off() -> None:
    assert is_disabled({"OTEL_SDK_DISABLED": "True"})
    assert is_disabled({"OTEL_TRACES_EXPORTER": "none"})
    assert not is_disabled({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"})


def exported(*spans: Span, environment: dict[str, str] | None = None) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    export = SpanExport(Otel(enabled=True), exporter=memory, environment=environment or {})
    export.put(spans)
    found = []
    shutdown = memory.shutdown
    memory.shutdown = lambda: found.extend(memory.get_finished_spans()) or shutdown()  # type: ignore[method-assign]
    export.close()
    assert export.counts.exported == len(spans)
    return found


def test_a_span_in_the_terms_of_the_sdk() -> None:
    (found,) = exported(span(state="a=b"))
    assert found.context.trace_id == int(TRACE, 16)
    assert found.context.span_id == 1
    assert found.context.trace_state.to_header() == "a=b"
    assert found.parent.span_id == 0x00F067AA0BA902B7
    assert found.parent.is_remote
    assert found.kind is SpanKind.SERVER
    assert (found.start_time, found.end_time) == (1000 * 10**9, 1000250 * 10**6)
    assert dict(found.attributes)["http.response.status_code"] == 200
    assert found.status.status_code is StatusCode.UNSET
    assert found.resource.attributes["service.name"] == "quicedge"


def test_a_root_and_a_failure() -> None:
    root, failed, refused = exported(
        span(parent_id=None), span(error="origin_reset"), span(error="503", kind="client")
    )
    assert root.parent is None
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "origin_reset",
    )
    assert (refused.status.status_code, refused.status.description) == (StatusCode.ERROR, None)
    assert refused.kind is SpanKind.CLIENT


@pytest.mark.parametrize("state", ["\xff", "=", "a=b,,", "x" * 5000])
def test_a_clients_strange_tracestate_costs_no_span(state: str) -> None:
    assert len(exported(span(state=state))) == 1


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "a"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "x=y, service.name=b"}, "b"),
        ({}, "quicedge"),
    ],
)
def test_what_the_service_is_called(environment: dict[str, str], name: str) -> None:
    (found,) = exported(span(), environment=environment)
    assert found.resource.attributes["service.name"] == name


class Gate:
    """A collector that takes nothing until it is opened."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.result: SpanExportResult | Exception = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.opened.wait(10)
        self.batches.append(len(spans))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self) -> None:
        self.opened.set()


SMALL = {
    "OTEL_BSP_MAX_QUEUE_SIZE": "10",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
    "OTEL_BSP_SCHEDULE_DELAY": "10",
}


def test_a_slow_collector_costs_spans_and_never_time() -> None:
    gate = Gate()
    export = SpanExport(Otel(enabled=True), exporter=gate, environment=SMALL)
    export.put([span(n) for n in range(1, 5)])
    assert gate.entered.wait(10)
    export.put([span(n) for n in range(5, 30)])  # ten wait, fifteen are lost
    assert export.counts.dropped == {"queue": 15, "export": 0}
    gate.opened.set()
    wait_until(lambda: export.counts.exported == 14, "the queue to empty")
    assert max(gate.batches) == 4
    export.close()


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, RuntimeError("no route")])
def test_what_the_collector_refuses_is_counted(result: SpanExportResult | Exception) -> None:
    gate = Gate()
    gate.result = result
    gate.opened.set()
    export = SpanExport(Otel(enabled=True), exporter=gate, environment=SMALL)
    export.put([span(n) for n in range(1, 8)])
    wait_until(lambda: export.counts.dropped["export"] == 7, "the failures")
    gate.result = SpanExportResult.SUCCESS
    export.put([span()])
    wait_until(lambda: export.counts.exported == 1, "the collector to be back")
    export.close()


def test_closing_waits_for_a_hanging_collector_no_longer_than_configured() -> None:
    gate = Gate()
    export = SpanExport(Otel(enabled=True), exporter=gate, environment=SMALL)
    export.put([span()])
    assert gate.entered.wait(10)
    export.close(timeout=0.05)
    assert gate.opened.is_set(), "the exporter is told to end"


def test_nonsense_in_the_environment_counts_as_unset() -> None:
    export = SpanExport(
        Otel(enabled=True),
        exporter=Gate(),
        environment={"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"},
    )
    export.put([span(n) for n in range(1, 101)])
    assert export.counts.dropped["queue"] == 0
    export.close(timeout=0)
