"""The HTTP/2 frame reader: any split of the bytes gives the same events, and none another error."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from quicedge.http.h2 import H2Connection, H2Error, H2Settings, H2Stream, H2StreamError
from quicedge.http.h2_frames import PREFACE, frame_header, settings_frame
from quicedge.http.hpack import Section
from quicedge.http.message import Fields

SETTINGS = H2Settings(max_streams=4, stream_window=100_000, connection_window=200_000)
BLOCK = Encoder().encode([(b":method", b"POST"), (b":path", b"/")])


class Recorder:
    """A handler that writes down what it is told, content joined."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.content: dict[int, bytes] = {}

    def on_request(self, stream: H2Stream, section: Section, ended: bool) -> None:
        self.events.append(("request", stream.id, tuple(section.fields), ended))

    def on_data(self, stream: H2Stream, data: bytes) -> None:
        self.content[stream.id] = self.content.get(stream.id, b"") + data

    def on_trailers(self, stream: H2Stream, fields: Fields) -> None:
        self.events.append(("trailers", stream.id, self.content.get(stream.id)))

    def on_end(self, stream: H2Stream) -> None:
        self.events.append(("end", stream.id, self.content.get(stream.id)))

    def on_cut_short(self, stream: H2Stream) -> bool:
        return bool(stream.id & 2)

    def on_reset(self, stream: H2Stream, code: int) -> None:
        self.events.append(("reset", stream.id, code))

    def on_stream_error(self, stream: H2Stream, error: H2StreamError) -> None:
        self.events.append(("error", stream.id, error.code))

    def on_refused(self) -> None:
        self.events.append(("refused",))

    def on_exhausted(self, reason: str) -> None:
        self.events.append(("exhausted",))


def frames() -> st.SearchStrategy[bytes]:
    """Mostly valid frames of a few streams."""

    def encode(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        return frame_header(kind, flags, stream_id, len(payload)) + payload

    streams = st.sampled_from([0, 1, 1, 3, 3, 5, 2])
    payloads = st.one_of(
        st.just(BLOCK), st.binary(max_size=40), st.integers(0, 20_000).map(bytes),
        st.just(b"\0\0\0\x07"),
    )  # fmt: skip
    return st.one_of(
        st.builds(encode, st.just(1), st.sampled_from([4, 5, 1]), streams, st.just(BLOCK)),
        st.builds(encode, st.just(0), st.sampled_from([0, 0, 1, 8]), streams, payloads),
        st.builds(
            encode, st.integers(0, 17), st.sampled_from([0, 1, 4, 5, 8, 0x20]), streams, payloads
        ),
        st.binary(max_size=20),
    )


def run(pieces: list[bytes]) -> tuple[object, ...]:
    """What comes of these bytes: events, content, the error, what was output."""
    recorder = Recorder()
    codec = H2Connection(recorder, SETTINGS, lambda: 0.0)
    codec.start()
    error = None
    output = b""
    try:
        for piece in pieces:
            codec.receive(piece)
            while codec.has_waiting:
                codec.receive(b"")
            output += b"".join(codec.poll(1 << 20))
    except H2Error as raised:
        error = raised.code, raised.reason
        output += b"".join(codec.poll(1 << 20))
    assert 0 <= codec.unread_bytes <= SETTINGS.connection_window
    content = {} if error else recorder.content
    return recorder.events, content, error, output


@given(st.lists(frames(), max_size=12), st.lists(st.integers(1, 60_000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_events(sent: list[bytes], cuts: list[int]) -> None:
    data = PREFACE + settings_frame({}) + b"".join(sent)
    places = sorted({cut for cut in cuts if cut < len(data)})
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert run(pieces) == run([data])


@given(st.lists(frames(), max_size=6))
def test_bytes_one_by_one_give_the_same_events(sent: list[bytes]) -> None:
    data = PREFACE + settings_frame({}) + b"".join(sent)[:600]
    assert run([data[at : at + 1] for at in range(len(data))]) == run([data])
