"""What RFC 9000 asks of a receiver and aioquic does not check."""

from __future__ import annotations

from aioquic.buffer import UINT_VAR_MAX, Buffer
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from quicedge.config.limits import MAX_CRYPTO_OFFSET
from quicedge.quic.adapter.gaps import check_gaps
from quicedge.quic.adapter.state import StateConnection
from quicedge.quic.frames import FrameError
from quicedge.quic.parameters import split_parameters


class StrictConnection(StateConnection):
    """See the module."""

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        # aioquic fills the gap below an offset with zeros, so the offset is what costs memory.
        end = buf.pull_uint_var() + buf.pull_uint_var()
        if MAX_CRYPTO_OFFSET < end <= UINT_VAR_MAX:
            raise QuicConnectionError(
                error_code=QuicErrorCode.CRYPTO_BUFFER_EXCEEDED,
                frame_type=frame_type,
                reason_phrase="CRYPTO offset beyond what a handshake needs",
            )
        buf.seek(start)
        super()._handle_crypto_frame(context, frame_type, buf)
        check_gaps(self._crypto_streams[context.epoch], frame_type)

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None:
            check_gaps(stream, frame_type)

    def _handle_new_connection_id_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        sequence_number, retire_prior_to = buf.pull_uint_var(), buf.pull_uint_var()
        # RFC 9000 section 19.15: a value in the Retire Prior To field that is greater than that in
        # the Sequence Number field MUST be treated as FRAME_ENCODING_ERROR.
        if retire_prior_to > sequence_number:
            raise QuicConnectionError(
                error_code=QuicErrorCode.FRAME_ENCODING_ERROR,
                frame_type=frame_type,
                reason_phrase="Retire Prior To is greater than the Sequence Number",
            )
        buf.seek(start)
        super()._handle_new_connection_id_frame(context, frame_type, buf)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        try:
            ids = [parameter for parameter, _ in split_parameters(data)]
        except FrameError as error:
            raise _parameter_error("Could not parse QUIC transport parameters") from error
        # RFC 9000 section 7.4: an endpoint SHOULD treat receipt of duplicate transport parameters
        # as a connection error of type TRANSPORT_PARAMETER_ERROR; aioquic takes the last.
        if len(set(ids)) < len(ids):
            raise _parameter_error("A transport parameter is repeated")
        super()._parse_transport_parameters(data, from_session_ticket)


def _parameter_error(reason: str) -> QuicConnectionError:
    return QuicConnectionError(
        error_code=QuicErrorCode.TRANSPORT_PARAMETER_ERROR,
        frame_type=QuicFrameType.CRYPTO,
        reason_phrase=reason,
    )
