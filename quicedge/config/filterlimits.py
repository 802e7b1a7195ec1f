"""Limits of matching, and of the filters of routes: name, unit and rationale."""

from typing import Final

FILTER_TIMEOUT: Final = 10.0
"""Seconds that one phase of one filter may take: longer than a password hash on a busy machine, and
less than what people wait for a page."""

FILTER_BLOCKING: Final = 0.1
"""Seconds for which a filter written in Python may hold the event loop of its worker before it is
logged: long enough for people to notice."""

BLOCKING_LOGGED_PER_SECOND: Final = 1
"""Such calls logged per filter and second."""

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

COMPRESSING_STREAMS: Final = 128
"""Responses that a worker compresses at once, shared fairly among clients: each takes up to 1.4 MB.
Further ones are sent as they are."""

COMPRESSORS_KEPT: Final = 4
"""Idle zstd contexts that are kept per level: as many as small responses use at once."""

ENCODINGS_REMEMBERED: Final = 256
"""Values of Accept-Encoding whose meaning is kept: browsers send a handful."""

HTPASSWD_MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a file of users: fifty thousand of them."""

PASSWORD_MAX_ROUNDS: Final = 14
"""The highest cost of a bcrypt hash that is accepted: one second per password; 12 is usual."""

PASSWORD_MAX_LENGTH: Final = 1024
"""Bytes of a password; bcrypt itself looks at 72 of them."""

PASSWORDS_CHECKED: Final = 2
"""Threads per worker that check passwords: a flood of wrong ones leaves the event loop its core."""

PASSWORDS_WAITING: Final = 64
"""Passwords that wait to be checked, shared fairly among clients; beyond: 503. They take about ten
seconds at a cost of 12."""

PASSWORDS_REMEMBERED: Final = 4096
"""Credentials that were right and are not checked again, per filter."""

PAGE_MAX_SIZE: Final = 1024 * 1024
"""Bytes of an error page, which is kept in memory."""

AUTH_ANSWER_MAX_SIZE: Final = 256 * 1024
"""Bytes of a response of an authentication service that is passed on to the client."""

STATIC_LISTED: Final = 5000
"""Entries of a directory that are listed: looking at each takes two microseconds."""

STATIC_RULES: Final = 64
"""Patterns of `cache_control` per root: each is tried for every file that is served."""

BUFFERED_IN_MEMORY: Final = 16 * 1024 * 1024
"""Bytes of buffered bodies per worker that are kept in memory, shared fairly among clients; further
ones go to disk at once."""

BUFFERED_ON_DISK: Final = 4 * 1024 * 1024 * 1024
"""Bytes of buffered bodies per worker on disk, shared fairly among clients. Beyond, requests are
answered 503 and origins wait."""

BUFFER_PIECE: Final = 64 * 1024
"""Bytes of a buffered body that are passed on at once, before other work runs."""

MIRRORS_RUNNING: Final = 100
"""Copies of requests per worker and filter that run at once."""

MIRROR_TIMEOUT: Final = 30.0
"""Seconds that a copy may take."""

MIRROR_LOGGED_PER_SECOND: Final = 2
"""Differences between responses logged per filter and second."""

HINTS_REMEMBERED: Final = 1024
"""Pages whose Link fields are remembered, per filter: those asked for last."""

HINTS_PER_PAGE: Final = 16
"""Links of a page that are sent as early hints: more than a browser starts at once."""

HINTS_MAX_SIZE: Final = 2 * 1024
"""Bytes of the links of a page that are remembered."""

HINTS_MAX_PATH: Final = 512
"""Bytes of a path whose links are remembered."""
