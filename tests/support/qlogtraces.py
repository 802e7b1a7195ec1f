"""qlog traces of transfers that really happened, in memory and on a virtual clock."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.logger import QuicLogger, QuicLoggerTrace

from tests.support.certs import write_certificate
from tests.support.simnet import Link, Pair, Peer

EPOCH = 1_700_000_000.0
"""Seconds; when the virtual clock's zero was."""


class _Trace(QuicLoggerTrace):
    clock: Callable[[], float]

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        time = self.encode_time(EPOCH + type(self).clock())
        self._events.append({"data": data, "name": f"{category}:{event}", "time": time})


class _Logger(QuicLogger):
    """aioquic's logger on our clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._type = type("Trace", (_Trace,), {"clock": staticmethod(clock)})

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        trace: QuicLoggerTrace = self._type(is_client=is_client, odcid=odcid)
        self._traces.append(trace)
        return trace


class _Server(QuicConnection):
    """Has nothing to send before the first datagram, where aioquic's own has no path yet."""

    heard = False

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        self.heard = True
        super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        return super().datagrams_to_send(now) if self.heard else []


@dataclass
class Transfer:
    """Both sides' traces of one connection, and what really happened to it."""

    client: dict[str, Any]
    server: dict[str, Any]
    datagrams_lost: int
    sizes: list[int]
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """The traces as aioquic writes them: `client.qlog` and `server.qlog`."""
        paths = directory / "client.qlog", directory / "server.qlog"
        for path, trace in zip(paths, (self.client, self.server), strict=True):
            path.write_text(json.dumps(trace))
        return paths


def transfer(
    *,
    sizes: tuple[int, ...] = (300_000,),
    loss: float = 0.02,
    delay: float = 0.02,
    rate: float | None = 1_250_000.0,
    queue: int = 60_000,
    seed: int = 1,
    path: bytes = b"/file",
    client_options: dict[str, Any] | None = None,
    close_reason: str = "done",
) -> Transfer:
    """A client fetches files over HTTP/3 at once; `loss` is of the server's datagrams alone."""
    pair: Pair | None = None
    now = 0.0
    logger = _Logger(lambda: pair.now if pair is not None else now)
    client = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
            server_name="localhost", quic_logger=logger, **(client_options or {}),
        )
    )  # fmt: skip
    client.connect(("192.0.2.2", 443), now)
    server_configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, quic_logger=logger
    )
    with tempfile.TemporaryDirectory() as directory:
        cert_file, key_file = write_certificate(Path(directory), "localhost")
        server_configuration.load_cert_chain(cert_file, key_file)
    server = _Server(
        configuration=server_configuration,
        original_destination_connection_id=client.original_destination_connection_id,
    )
    pair = Pair(
        Peer(client, ("192.0.2.1", 50000)),
        Peer(server, ("192.0.2.2", 443)),
        Link(delay=delay),
        Link(delay=delay, loss=loss, rate=rate, queue=queue),
        seed,
        now,
    )
    finished: set[int] = set()
    serving: dict[str, H3Connection] = {}

    def respond(event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            h3 = serving["h3"]
            h3.send_headers(event.stream_id, [(b":status", b"200")])
            h3.send_data(event.stream_id, b"x" * sizes[event.stream_id // 4], end_stream=True)

    def at_server(event: Any) -> None:
        if "h3" not in serving:
            serving["h3"] = H3Connection(server)
        for item in serving["h3"].handle_event(event):
            respond(item)

    def at_client(event: Any) -> None:
        for item in client_h3.handle_event(event):
            if getattr(item, "stream_ended", False):
                finished.add(item.stream_id)  # type: ignore[attr-defined]

    pair.server.on_event = at_server
    client_h3 = H3Connection(client)
    pair.client.on_event = at_client
    for number in range(len(sizes)):
        client_h3.send_headers(
            client.get_next_available_stream_id(),
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"),
             (b":path", path + b"%d" % number)],
            end_stream=True,
        )  # fmt: skip
    pair.run(lambda: len(finished) == len(sizes))
    client.close(error_code=0x100, reason_phrase=close_reason)
    pair.transmit()
    pair.step()
    traces = [
        {"qlog_format": "JSON", "qlog_version": "0.3", "traces": [trace.to_dict()]}
        for trace in logger._traces
    ]
    return Transfer(traces[0], traces[1], pair.datagrams_lost, list(sizes), pair.now)


@cache
def lossy() -> Transfer:
    """A transfer of three files at once over 10 Mbit/s, 40 ms round trip and 2 % loss."""
    return transfer(sizes=(200_000, 100_000, 400_000))


_RENAMED = {
    "transport:datagrams_sent": "quic:udp_datagrams_sent",
    "transport:datagrams_received": "quic:udp_datagrams_received",
    "recovery:metrics_updated": "quic:recovery_metrics_updated",
    "security:key_retired": "quic:key_discarded",
    "connectivity:spin_bit_updated": "quic:spin_bit_updated",
}


def draft_12(contained: dict[str, Any], title: str = "quiche-client") -> list[dict[str, Any]]:
    """The records of the same trace as a writer of drafts 12 has them (quiche's shape)."""
    trace = contained["traces"][0]
    start = trace["events"][0]["time"]
    records: list[dict[str, Any]] = [
        {
            "file_schema": "urn:ietf:params:qlog:file:sequential",
            "serialization_format": "application/qlog+json-seq",
            "title": title,
            "trace": {
                "vantage_point": {"type": trace["vantage_point"]["type"]},
                "event_schemas": [
                    "urn:ietf:params:qlog:events:quic-12",
                    "urn:ietf:params:qlog:events:http3-12",
                ],
                "common_fields": {
                    "group_id": trace["common_fields"]["ODCID"],
                    "reference_time": {
                        "clock_type": "monotonic",
                        "epoch": "unknown",
                        "wall_clock_time": "2026-01-02T03:04:05Z",
                    },
                },
            },
        }
    ]
    for event in trace["events"]:
        data = json.loads(json.dumps(event["data"]))
        name = event["name"]
        category, _, kind = name.partition(":")
        namespace = "http3" if category == "http" else "quic"
        if kind in ("datagrams_sent", "datagrams_received"):
            data["raw"] = [{"length": item["payload_length"]} for item in data["raw"]]
        if "owner" in data:
            data["initiator"] = data.pop("owner")
        for frame in data.get("frames", []):
            length = frame.pop("length", None)
            if frame["frame_type"] in ("stream", "crypto"):
                frame["raw"] = {"payload_length": length}
            if frame["frame_type"] == "new_connection_id":
                frame["stateless_reset_token"] = frame.pop("reset_token")
            if frame["frame_type"] == "connection_close":
                frame["error"] = "unknown"
                del frame["raw_error_code"]
        if kind == "packet_lost":
            data = {"header": {"packet_type": data["type"], "packet_number": data["packet_number"]}}
        if kind == "version_information":
            data["client_versions"] = [f"{version:08x}" for version in data["client_versions"]]
            data["chosen_version"] = f"{data['chosen_version']:08x}"
        if kind == "alpn_information":
            data["client_alpns"] = [{"string_value": name} for name in data["client_alpns"]]
        if kind in ("frame_created", "frame_parsed"):
            data["frame"]["raw"] = {"payload_length": data.pop("length")}
        if kind == "stream_type_set":
            data["stream_type"] = _stream_type(data.pop("new", data.get("stream_type")))
            data.pop("owner", None)
        if kind == "metrics_updated":
            data["congestion_window"] = data.pop("cwnd")
        if kind in ("key_updated", "key_retired"):
            data = {"key_type": data["key_type"], "trigger": "tls"}
        records.append(
            {"time": event["time"] - start, "name": _RENAMED.get(name, f"{namespace}:{kind}"),
             "data": data}
        )  # fmt: skip
    return records


def _stream_type(name: str) -> str:
    return {"qpack_encoder": "qpack_encode", "qpack_decoder": "qpack_decode"}.get(name, name)


def sequential(records: list[dict[str, Any]], separator: bytes = b"\x1e") -> bytes:
    """Records as a JSON text sequence, or with an empty separator newline-delimited."""
    return b"".join(separator + json.dumps(record).encode() + b"\n" for record in records)


def picoquic(contained: dict[str, Any]) -> dict[str, Any]:
    """The same trace in picoquic's shape: draft-00, arrays of fields, microseconds."""
    trace = contained["traces"][0]
    start = trace["events"][0]["time"]
    events = []
    for event in trace["events"]:
        category, _, kind = event["name"].partition(":")
        data = json.loads(json.dumps(event["data"]))
        if kind in ("packet_sent", "packet_received"):
            data["packet_type"] = data["header"].pop("packet_type")
            data["header"]["packet_size"] = data.pop("raw", {}).get("length", 0)
            for frame in data["frames"]:
                if frame["frame_type"] == "stream":
                    frame["id"] = frame.pop("stream_id")
        elif kind in ("datagrams_sent", "datagrams_received"):
            kind = kind.replace("datagrams", "datagram")
            data = {"byte_length": data["raw"][0]["payload_length"]}
        elif kind == "metrics_updated":
            for name in ("min_rtt", "smoothed_rtt", "latest_rtt", "rtt_variance"):
                if name in data:
                    data[name] = round(data[name] * 1000)
        elif kind == "packet_lost":
            data = {"packet_type": data["type"], "packet_number": data["packet_number"]}
        events.append([round((event["time"] - start) * 1000), category, kind, data])
    return {
        "qlog_version": "draft-00",
        "title": "picoquic",
        "traces": [
            {
                "vantage_point": {"name": "backend-67", "type": trace["vantage_point"]["type"]},
                "title": "picoquic",
                "event_fields": ["relative_time", "category", "event", "data"],
                "configuration": {"time_units": "us"},
                "common_fields": {"protocol_type": "QUIC_HTTP3", "reference_time": "0"},
                "events": events,
            }
        ],
    }
