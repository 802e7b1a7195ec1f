"""Error codes of HTTP/3, QPACK and HTTP/2, and how they map onto each other and to status codes."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class H3ErrorCode(IntEnum):
    """RFC 9114 section 8.1 and RFC 9204 section 6."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    CONNECT_ERROR = 0x10F
    VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202


class H2ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


_H2_CODES = {
    H3ErrorCode.NO_ERROR: H2ErrorCode.NO_ERROR,
    H3ErrorCode.INTERNAL_ERROR: H2ErrorCode.INTERNAL_ERROR,
    H3ErrorCode.EXCESSIVE_LOAD: H2ErrorCode.ENHANCE_YOUR_CALM,
    H3ErrorCode.REQUEST_REJECTED: H2ErrorCode.REFUSED_STREAM,
    H3ErrorCode.REQUEST_CANCELLED: H2ErrorCode.CANCEL,
    H3ErrorCode.REQUEST_INCOMPLETE: H2ErrorCode.PROTOCOL_ERROR,
    H3ErrorCode.CONNECT_ERROR: H2ErrorCode.CONNECT_ERROR,
    H3ErrorCode.VERSION_FALLBACK: H2ErrorCode.HTTP_1_1_REQUIRED,
    H3ErrorCode.QPACK_DECOMPRESSION_FAILED: H2ErrorCode.COMPRESSION_ERROR,
}


def h2_error_name(code: int) -> str:
    """The RFC name of an HTTP/2 error code; hexadecimal if it has none."""
    try:
        return H2ErrorCode(code).name
    except ValueError:
        return f"{code:#x}"


def to_h2(code: int) -> H2ErrorCode:
    """The HTTP/2 error code with the meaning of an HTTP/3 one; PROTOCOL_ERROR if there is none."""
    return _H2_CODES.get(code, H2ErrorCode.PROTOCOL_ERROR)  # type: ignore[call-overload]


_TRANSPORT_ERRORS = (
    "NO_ERROR", "INTERNAL_ERROR", "CONNECTION_REFUSED", "FLOW_CONTROL_ERROR", "STREAM_LIMIT_ERROR",
    "STREAM_STATE_ERROR", "FINAL_SIZE_ERROR", "FRAME_ENCODING_ERROR", "TRANSPORT_PARAMETER_ERROR",
    "CONNECTION_ID_LIMIT_ERROR", "PROTOCOL_VIOLATION", "INVALID_TOKEN", "APPLICATION_ERROR",
    "CRYPTO_BUFFER_EXCEEDED", "KEY_UPDATE_ERROR", "AEAD_LIMIT_REACHED", "NO_VIABLE_PATH",
)  # fmt: skip
"""Transport error names, indexed by code (RFC 9000 section 20.1)."""
_VERSION_NEGOTIATION_ERROR = 0x11
"""RFC 9368 section 10.2."""
_ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
    40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate",
    44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 109: "missing_extension",
    110: "unsupported_extension", 112: "unrecognized_name", 113: "bad_certificate_status_response",
    115: "unknown_psk_identity", 116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip
"""TLS alerts (RFC 8446 section 6), which QUIC carries as 0x100 plus the alert."""


def error_name(code: int, *, application: bool) -> str:
    """The RFC name of an error code; hexadecimal if it has none.

    `application`: the code is one of HTTP/3 or QPACK (RESET_STREAM, application
    CONNECTION_CLOSE), otherwise one of QUIC or TLS.
    """
    if application:
        try:
            error = H3ErrorCode(code)
        except ValueError:
            return f"{code:#x}"
        return error.name if error.name.startswith("QPACK") else f"H3_{error.name}"
    if code < len(_TRANSPORT_ERRORS):
        return _TRANSPORT_ERRORS[code]
    if code == _VERSION_NEGOTIATION_ERROR:
        return "VERSION_NEGOTIATION_ERROR"
    if 0x100 <= code < 0x200:
        return f"CRYPTO_ERROR ({_ALERTS.get(code - 0x100, f'alert {code - 0x100}')})"
    return f"{code:#x}"


class OriginFailure(StrEnum):
    """How an origin failed a request; the values are stable names in logs and metrics."""

    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    RESET = "reset"
    """The connection or stream ended early."""
    PROTOCOL = "protocol"
    """The response is malformed."""
    REQUEST = "request"
    """The request violated its own framing."""
    NO_SERVER = "no_server"
    OVERLOADED = "overloaded"
    CIRCUIT_OPEN = "circuit_open"
    """Not sent: most requests have failed lately."""
    NO_TUNNEL = "no_tunnel"
    """It does not switch protocols, or does not offer extended CONNECT (RFC 8441)."""
    APPLICATION = "application"
    """An application of this process raised an exception or gave no response."""
    STALLED = "stalled"
    """The client made no progress while other requests waited for the connection."""

    @property
    def status(self) -> int:
        """The status sent to the client (RFC 9110 section 15.6)."""
        return _FAILURE_STATUS.get(self, 502)

    @property
    def is_unreachable(self) -> bool:
        """No connection was established: another server may be tried."""
        return self in (OriginFailure.CONNECT, OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS)


_FAILURE_STATUS = {
    OriginFailure.APPLICATION: 500,
    OriginFailure.CONNECT_TIMEOUT: 504,
    OriginFailure.FIRST_BYTE_TIMEOUT: 504,
    OriginFailure.IDLE_TIMEOUT: 504,
    OriginFailure.NO_SERVER: 503,
    OriginFailure.NO_TUNNEL: 501,
    OriginFailure.OVERLOADED: 503,
    OriginFailure.CIRCUIT_OPEN: 503,
    OriginFailure.STALLED: 408,
}
