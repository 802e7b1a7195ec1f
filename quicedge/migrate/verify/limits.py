"""Bounds of a verification in time and number: name, unit and rationale."""

from typing import Final

MAX_SAMPLES: Final = 3000
"""Requests that are played: some 200 per second are, so that a verification takes seconds."""

MAX_SECONDS: Final = 180.0
"""Seconds that playing may take; what is left then is told as not played."""

START_TIMEOUT: Final = 30.0
"""Seconds that an edge may take to answer: ten times what a busy machine needs."""

STOP_TIMEOUT: Final = 5.0
"""Seconds that an edge has to end before it is killed."""

RESPONSE_TIMEOUT: Final = 10.0
"""Seconds without a byte after which a client gives a response up."""

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of a request or response that are kept; bodies beyond a limit higher than this are not
sent."""

BURST: Final = 60
"""Requests at once at most when a rate limit is tried."""

SETTLE: Final = 0.1
"""Seconds after a response in which copies of its request (`mirror`) reach their origin."""
