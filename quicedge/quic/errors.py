"""Transport errors (RFC 9000 section 20): what makes an endpoint close a connection."""

from __future__ import annotations

from aioquic.quic.packet import QuicErrorCode as ErrorCode

__all__ = ["ErrorCode", "TransportError", "transport_error_name"]

_NAMES = (
    "no_error", "internal_error", "connection_refused", "flow_control_error", "stream_limit_error",
    "stream_state_error", "final_size_error", "frame_encoding_error", "transport_parameter_error",
    "connection_id_limit_error", "protocol_violation", "invalid_token", "application_error",
    "crypto_buffer_exceeded", "key_update_error", "aead_limit_reached", "no_viable_path",
)  # fmt: skip


class TransportError(Exception):
    """The peer broke a rule: the connection is closed with this code."""

    def __init__(self, code: int, frame_type: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.frame_type = frame_type
        self.reason = reason


def transport_error_name(code: int) -> str:
    """qlog's name of a transport error code, or of a TLS alert."""
    if code < len(_NAMES):
        return _NAMES[code]
    return f"crypto_error_0x{code:03x}" if 0x100 <= code < 0x200 else "unknown"
