"""What RFC 9000 asks of a receiver and aioquic does not check."""

from __future__ import annotations

from aioquic import tls
from aioquic.buffer import UINT_VAR_MAX, Buffer
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import STATELESS_RESET_TOKEN_SIZE, QuicErrorCode, QuicFrameType

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
        connection_id = buf.pull_bytes(buf.pull_uint8())
        reset_token = buf.pull_bytes(STATELESS_RESET_TOKEN_SIZE)
        self._check_reuse(sequence_number, connection_id, reset_token, frame_type)
        buf.seek(start)
        super()._handle_new_connection_id_frame(context, frame_type, buf)

    def _check_reuse(
        self, sequence_number: int, connection_id: bytes, reset_token: bytes, frame_type: int
    ) -> None:
        """RFC 9000 section 19.15: a connection ID that is repeated with a different Stateless
        Reset Token or a different Sequence Number, or a sequence number used for different
        connection IDs, MAY be treated as PROTOCOL_VIOLATION. The same frame again MUST NOT."""
        paths = [path.peer_cid for path in self._network_paths if path.peer_cid is not None]
        for known in (self._peer_cid, *paths, *self._peer_cid_available):
            same_number = known.sequence_number == sequence_number
            if same_number is not (known.cid == connection_id) or (
                # The client's first connection ID has no token.
                same_number and known.stateless_reset_token not in (None, reset_token)
            ):
                raise QuicConnectionError(
                    error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                    frame_type=frame_type,
                    reason_phrase="A connection ID or its sequence number is used again",
                )

    def _handle_path_response_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        # RFC 9000 section 12.4 table 3: 1-RTT packets alone hold it; aioquic takes it in 0-RTT.
        if context.epoch is not tls.Epoch.ONE_RTT:
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="PATH_RESPONSE outside 1-RTT",
            )
        super()._handle_path_response_frame(context, frame_type, buf)

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
