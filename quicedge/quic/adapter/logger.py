"""What aioquic's general path says of packets, in the words of today's qlog.

aioquic writes events of qlog 0.3 into a `QuicLoggerTrace`; this one passes them on to a `Trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aioquic.quic.logger import QuicLoggerTrace
from aioquic.quic.packet import PARAMS, QuicStreamFrame, QuicTransportParameters

from quicedge.quic import logged
from quicedge.quic.parameters import split_parameters
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace

_DROPPED = {
    "key_unavailable": "key_unavailable",
    "payload_decrypt_error": "decryption_failure",
    "duplicate": "duplicate",
    "unknown_connection_id": "connection_unknown",
    "unsupported_version": "unsupported",
    "header_parse_error": "invalid",
    "initial_packet_datagram_too_small": "invalid",
}
"""aioquic's reasons; others are `general`."""

_GREASE_QUIC_BIT = 0x2AB2
"""RFC 9287 section 3; aioquic does not know it, qlog does."""

_PARAMETERS = frozenset(events.ParametersSet.__struct_fields__)


class TraceLogger(QuicLoggerTrace):
    """aioquic's logger of one connection. Frames are qlog's, see `quic.logged`."""

    def __init__(
        self,
        trace: Trace,
        remote_parameters: Callable[[], bytes],
        is_holding: Callable[[], bool],
    ) -> None:
        """`remote_parameters` gives the peer's transport parameters as they came, `is_holding`
        whether a packet without keys is kept, which aioquic calls dropped."""
        self._is_holding = is_holding
        self._trace = trace
        self._remote_parameters = remote_parameters
        self._received: dict[str, Any] | None = None

    # --- frames ---------------------------------------------------------------------------------

    def encode_ack_frame(self, ranges: Iterable[range], delay: float) -> logged.Frame:
        return logged.ack_frame([(r.start, r.stop) for r in ranges], delay)

    def encode_connection_close_frame(
        self, error_code: int, frame_type: int | None, reason_phrase: str
    ) -> logged.Frame:
        return logged.close_frame(error_code, frame_type, reason_phrase)

    def encode_crypto_frame(self, frame: QuicStreamFrame) -> logged.Frame:
        return logged.crypto_frame(frame.offset, len(frame.data))

    def encode_datagram_frame(self, length: int) -> logged.Frame:
        return {"frame_type": "datagram", "raw": {"payload_length": length}}

    def encode_new_connection_id_frame(
        self,
        connection_id: bytes,
        retire_prior_to: int,
        sequence_number: int,
        stateless_reset_token: bytes,
    ) -> logged.Frame:
        return logged.new_connection_id_frame(sequence_number, retire_prior_to, connection_id)

    def encode_new_token_frame(self, token: bytes) -> logged.Frame:
        return logged.new_token_frame(len(token))

    def encode_reset_stream_frame(
        self, error_code: int, final_size: int, stream_id: int
    ) -> logged.Frame:
        return {
            "frame_type": "reset_stream",
            "stream_id": stream_id,
            "error": "unknown",
            "error_code": error_code,
            "final_size": final_size,
        }

    def encode_stop_sending_frame(self, error_code: int, stream_id: int) -> logged.Frame:
        return {
            "frame_type": "stop_sending",
            "stream_id": stream_id,
            "error": "unknown",
            "error_code": error_code,
        }

    def encode_stream_frame(self, frame: QuicStreamFrame, stream_id: int) -> logged.Frame:
        return logged.stream_frame(stream_id, frame.offset, len(frame.data), frame.fin)

    def encode_transport_parameters(
        self, owner: str, parameters: QuicTransportParameters
    ) -> dict[str, Any]:
        raw = self._remote_parameters() if owner == "remote" else b""
        unknown = _unknown(raw)
        found: dict[str, Any] = {
            "initiator": owner,
            "unknown_parameters": [item for item in unknown if item["id"] != _GREASE_QUIC_BIT],
        }
        if len(found["unknown_parameters"]) != len(unknown):
            found["grease_quic_bit"] = True
        for name, value in vars(parameters).items():
            if name in _PARAMETERS and value is not None:
                found[name] = value.hex() if isinstance(value, bytes) else value
        return found

    # --- events ---------------------------------------------------------------------------------

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        self.flush()
        if event == "packet_received":
            # Its frames are filled in while they are handled.
            self._received = data
        elif data.get("trigger") == "key_unavailable" and self._is_holding():
            self._trace.log(events.PacketBuffered(raw=_raw(data), trigger="keys_unavailable"))
        elif (make := _EVENTS.get(event)) is not None:
            self._trace.log(make(data))

    def flush(self) -> None:
        """Write the packet whose frames were handled last."""
        data, self._received = self._received, None
        if data is not None:
            self._trace.log(
                events.PacketReceived(header=_header(data), frames=data["frames"], raw=_raw(data))
            )


def _unknown(parameters: bytes) -> list[dict[str, Any]]:
    """What encoded transport parameters hold that aioquic knows nothing of: grease, as a rule."""
    return [
        {"id": number, "value": value.hex()}
        for number, value in split_parameters(parameters)
        if number not in PARAMS
    ]


def _header(data: dict[str, Any]) -> events.PacketHeader:
    header = data["header"]
    return events.PacketHeader(
        packet_type=header["packet_type"],
        packet_number=header.get("packet_number"),
        scid=header.get("scid") or None,
        dcid=header.get("dcid") or None,
    )


def _raw(data: dict[str, Any]) -> events.RawInfo:
    return events.RawInfo(length=data["raw"]["length"])


def _versions(data: dict[str, Any]) -> events.Event:
    def hexadecimal(name: str) -> list[str] | None:
        return [f"{version:08x}" for version in data[name]] if data.get(name) else None

    chosen = data.get("chosen_version")
    return events.VersionInformation(
        server_versions=hexadecimal("server_versions"),
        client_versions=hexadecimal("client_versions"),
        chosen_version=f"{chosen:08x}" if chosen is not None else None,
    )


def _alpns(data: dict[str, Any]) -> events.Event:
    def identifiers(name: str) -> list[dict[str, str]] | None:
        return [_identifier(alpn) for alpn in data[name]] if data.get(name) else None

    chosen = data.get("chosen_alpn")
    return events.AlpnInformation(
        server_alpns=identifiers("server_alpns"),
        client_alpns=identifiers("client_alpns"),
        chosen_alpn=_identifier(chosen) if chosen else None,
    )


def _identifier(alpn: str | bytes) -> dict[str, str]:
    """An application protocol as text where it is text; greased ones are any octets."""
    octets = alpn.encode() if isinstance(alpn, str) else alpn
    if octets.isascii() and (text := octets.decode("ascii")).isprintable():
        return {"string_value": text}
    return {"byte_value": octets.hex()}


_EVENTS = {
    "packet_sent": lambda data: events.PacketSent(
        header=_header(data), frames=data["frames"] or [], raw=_raw(data)
    ),
    "packet_dropped": lambda data: events.PacketDropped(
        raw=_raw(data), trigger=_DROPPED.get(data["trigger"], "general")
    ),
    "version_information": _versions,
    "alpn_information": _alpns,
    "parameters_set": lambda data: msgspec.convert(data, events.ParametersSet),
}
"""aioquic's events that are passed on; the rest is told by ourselves or not at all."""
