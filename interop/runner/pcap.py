"""Classic pcap files with nanosecond times, flushed packet by packet so that a kill loses none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC_NANOSECONDS = 0xA1B23C4D
SNAPLEN = 65535
LINKTYPE_ETHERNET = 1


class PcapWriter:
    """Writes Ethernet frames to `path`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(
            struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET)
        )
        self._file.flush()

    def write(self, time: float, frame: bytes | bytearray, length: int | None = None) -> None:
        """Append one frame seen at `time` (seconds since the epoch).

        `length` is what the frame had on the wire when it was captured in part.
        """
        seconds = int(time)
        nanoseconds = int((time - seconds) * 1e9)
        self._file.write(
            struct.pack("<IIII", seconds, nanoseconds, len(frame), length or len(frame))
        )
        self._file.write(frame)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_pcap(path: Path) -> Iterator[tuple[float, bytes]]:
    """Frames of a file that PcapWriter wrote, with their times; raises ValueError for others."""
    with path.open("rb") as file:
        header = file.read(24)
        if header[:4] != struct.pack("<I", MAGIC_NANOSECONDS):
            raise ValueError(f"{path}: not a pcap file of this harness")
        while len(record := file.read(16)) == 16:
            seconds, nanoseconds, length, _ = struct.unpack("<IIII", record)
            yield seconds + nanoseconds * 1e-9, file.read(length)
