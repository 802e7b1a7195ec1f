"""Human-readable numbers, and text that is safe for terminals."""

from __future__ import annotations


def milliseconds(value: float | None) -> str:
    """`0.8 ms`, `41 ms`, `2.15 s`; a dash for None."""
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value / 1000:.2f} s" if value < 100_000 else f"{value / 1000:.0f} s"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def size(value: float | None) -> str:
    """Bytes: `1.2 kB`, `700 kB`, `1.50 MB` (powers of ten); a dash for None."""
    if value is None:
        return "–"
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB"), (1e12, "GB")):
        if value < limit:
            scaled = value / (limit / 1e3)
            digits = 0 if unit == "B" or scaled >= 100 else 1 if scaled >= 10 else 2
            return f"{scaled:.{digits}f} {unit}"
    return f"{value / 1e12:.1f} TB"


def rate(bytes_: float, time: float) -> str:
    """Bytes per milliseconds as bits per second; a dash for an empty interval."""
    if time <= 0:
        return "–"
    bits = bytes_ * 8000 / time
    for limit, unit in ((1e3, "bit/s"), (1e6, "kbit/s"), (1e9, "Mbit/s")):
        if bits < limit:
            return f"{bits / (limit / 1e3):.3g} {unit}"
    return f"{bits / 1e9:.3g} Gbit/s"


def percent(part: float, whole: float) -> str:
    """`2.7 %`; a dash if `whole` is 0."""
    if whole <= 0:
        return "–"
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.2g} %"


def safe(value: object) -> str:
    """Escape unprintable characters (controls, bidi marks) in text from a trace.

    The writer of a trace must not control the reader's terminal.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
