"""Limits of matching, and of the filters of routes: name, unit and rationale."""

from typing import Final

FILTER_TIMEOUT: Final = 10.0
"""Seconds that one phase of one filter may take: longer than a password hash on a busy machine, and
less than what people wait for a page."""

FILTER_FAILURES_LOGGED_PER_SECOND: Final = 10
"""Failures of filters logged per route and second, with their tracebacks."""

REPLACED_BODY: Final = 64 * 1024
"""Bytes of a response that is read to its end although a filter has replaced it: opening another
connection to the origin costs more."""

TEMPLATE_MAX_VALUE: Final = 8 * 1024
"""Bytes that the value of a header, or a location, may have after placeholders are filled in: what
most servers accept as one field."""

MATCHED_LENGTH: Final = 16 * 1024
"""Bytes of a path, header, query value or cookie that regular expressions are applied to; a longer
value matches none. RE2 takes time in proportion to it: 0.1 ms for hostile ones."""

PATTERN_MAX_LENGTH: Final = 1024
"""Characters of a regular expression in the configuration."""

PATTERN_MEMORY: Final = 8 * 1024 * 1024
"""Bytes that RE2 may use for one regular expression, its own default; larger ones are rejected."""
