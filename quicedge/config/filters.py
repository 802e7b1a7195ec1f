"""Configuration schema of the filters of routes: `[[filters]]` and `[[routes.filters]]`.

Each entry is a table with one key, the kind of the filter, whose value is a table of its settings.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from quicedge.config import limits
from quicedge.config.filterlimits import FILTER_TIMEOUT, MIRROR_TIMEOUT, MIRRORS_RUNNING
from quicedge.config.section import Bytes, Lines, Seconds, Section

Status = Annotated[int, Meta(ge=200, le=599)]


class Redirect(Section, frozen=True):
    """Redirect all requests."""

    to: str
    """The target, a URL or a path, with placeholders."""
    status: Literal[301, 302, 303, 307, 308] = 302


class Respond(Section, frozen=True):
    """Answer all requests."""

    status: Status = 200
    body: Lines = ""
    """The content, with placeholders."""
    content_type: str = "text/plain; charset=utf-8"


class Rewrite(Section, frozen=True):
    """Change the target of requests before they go to the origin; the steps are taken in the order
    of these keys."""

    strip_prefix: str | None = None
    """Whole segments that are removed from the beginning of the path."""
    pattern: str | None = None
    """A regular expression; the part of the path that it matches is replaced."""
    replacement: str = ""
    r"""What takes its place; `\1` stands for a group."""
    add_prefix: str | None = None
    """Put before the path."""
    path: str | None = None
    """The whole path, with placeholders."""
    query: Literal["keep", "drop"] = "keep"
    host: str | None = None
    """The host that the origin is asked for, with placeholders."""


UPSTREAM = "upstream"
"""Stands for the addresses, domains and paths of the upstream itself."""


class RewriteLocation(Section, frozen=True):
    """Change where redirects of the origin lead."""

    map: dict[str, str] = field(default_factory=lambda: {UPSTREAM: "/"})
    r"""What takes the place of the beginning of a URL; the first one that matches counts: whole
    segments of a URL or a path; `http://`, any URL of the scheme; `upstream`, the addresses of the
    upstream itself; `~` and a regular expression, whose match stands for all of the URL, and with
    `\1` for a group in the replacement. All but regular expressions are templates."""
    fields: list[str] = field(default_factory=lambda: ["location", "refresh"])
    """Fields of responses that hold a URL."""


NO_DOMAIN = "!"
"""In place of the domain of a cookie: it has none."""


class CookieFlag(StrEnum):
    """What is set or removed of a cookie."""

    SECURE = "secure"
    NO_SECURE = "nosecure"
    HTTP_ONLY = "httponly"
    NO_HTTP_ONLY = "nohttponly"
    SAME_SITE_STRICT = "samesite=strict"
    SAME_SITE_LAX = "samesite=lax"
    SAME_SITE_NONE = "samesite=none"
    NO_SAME_SITE = "nosamesite"

    @property
    def attribute(self) -> str:
        """The attribute that it is about, in lower case."""
        return self.removeprefix("no").partition("=")[0]


class RewriteCookies(Section, frozen=True):
    """Change the cookies that the origin sets; of each table the first key that matches counts."""

    domain: dict[str, str] = field(default_factory=lambda: {UPSTREAM: NO_DOMAIN})
    """What takes the place of a domain, a template; `!`: nothing does. `upstream` stands for the
    domains of the upstream's hosts that the client's is not in, `~` begins a regular expression."""
    path: dict[str, str] = field(default_factory=lambda: {UPSTREAM: "/"})
    """What takes the place of whole segments at the beginning of a path, a template. `upstream`
    stands for the paths of the origin itself, `~` begins a regular expression."""
    flags: dict[str, list[CookieFlag]] = field(default_factory=dict)
    """Flags by the name of the cookie, `*` for any, or `~` and a regular expression."""


class FieldRules(Section, frozen=True):
    """Changes of header fields, made in the order of these keys; values have placeholders."""

    remove: list[str] = field(default_factory=list)
    """Names; `x-internal-*` stands for all that begin so."""
    set: dict[str, str] = field(default_factory=dict)
    """Fields that take the place of all others of their name."""
    default: dict[str, str] = field(default_factory=dict)
    """Fields that are added if there is none of their name."""
    add: dict[str, str] = field(default_factory=dict)
    """Fields that are added to others of their name."""


class Headers(Section, frozen=True):
    """Change header fields."""

    request: FieldRules | None = None
    """Of requests to the origin."""
    response: FieldRules | None = None
    """Of responses to the client."""


COMPRESSIBLE = (
    "text/*", "application/atom+xml", "application/javascript", "application/json",
    "application/ld+json", "application/manifest+json", "application/problem+json",
    "application/rss+xml", "application/wasm", "application/x-javascript", "application/xhtml+xml",
    "application/xml", "font/otf", "font/ttf", "image/bmp", "image/svg+xml",
    "image/vnd.microsoft.icon", "image/x-icon",
)  # fmt: skip
"""Media types that gain by compression; the others are compressed already."""


class Compress(Section, frozen=True):
    """Compress responses."""

    encodings: list[Literal["zstd", "br", "gzip"]] | None = None
    """Offered codings, the preferred one first; default: all three, as far as installed."""
    types: list[str] = field(default_factory=lambda: list(COMPRESSIBLE))
    """Media types; `text/*` stands for all that begin so."""
    min_size: Bytes = 1024
    """Shorter responses are sent as they are."""
    except_with: list[str] = field(default_factory=list)
    """Request fields whose senders get responses as they are: what is secret, and in one response
    with what an attacker chooses, is told by its compressed length (BREACH)."""
    zstd_level: Annotated[int, Meta(ge=1, le=12)] = 3
    brotli_level: Annotated[int, Meta(ge=0, le=9)] = 4
    gzip_level: Annotated[int, Meta(ge=1, le=9)] = 5


class Access(Section, frozen=True):
    """Let only some clients pass; others get 403."""

    allow: list[str] = field(default_factory=list)
    """Addresses and networks; when empty, all that are not denied."""
    deny: list[str] = field(default_factory=list)
    """Addresses and networks; the longest match of both lists wins."""


class Cors(Section, frozen=True):
    """Let scripts of other origins read responses."""

    origins: list[str]
    """`https://app.example.com`, `https://*.example.com`, or `*`."""
    methods: list[str] = field(default_factory=lambda: ["GET", "HEAD", "POST"])
    headers: list[str] = field(default_factory=list)
    """Request fields that scripts may set; `*`: whatever they ask for."""
    expose: list[str] = field(default_factory=list)
    """Response fields that scripts may read."""
    credentials: bool = False
    """Whether cookies are sent."""
    max_age: Seconds = 600.0
    """How long browsers may remember the answer to a preflight request."""


class SecurityHeaders(Section, frozen=True):
    """Tell browsers to be strict, where responses do not say it themselves."""

    hsts_max_age: Annotated[
        float, Meta(ge=0, le=limits.MAX_DURATION, extra={"unit": "seconds"})
    ] = 365 * 86400.0
    """Strict-Transport-Security: how long browsers use https only; 0: it is not sent."""
    hsts_subdomains: bool = False
    hsts_preload: bool = False
    """The domain asks to be in the list that browsers come with."""
    frame: Literal["deny", "sameorigin", "allow"] = "sameorigin"
    """Who may show the site in a frame."""
    referrer_policy: str | None = "strict-origin-when-cross-origin"
    opener_policy: str | None = "same-origin"
    content_security_policy: str | None = None
    permissions_policy: str | None = None


class BasicAuth(Section, frozen=True):
    """Ask for a name and a password."""

    htpasswd: str | None = None
    """File of users and their bcrypt hashes (`htpasswd -B`), read at start and on a reload."""
    users: dict[str, str] = field(default_factory=dict)
    """Users and their bcrypt hashes."""
    realm: str = "restricted"
    user_header: str | None = None
    """Request field that tells the origin the name of the user."""
    forward_credentials: bool = False
    """Whether the origin gets Authorization."""


class ForwardAuth(Section, frozen=True):
    """Ask another service whether a request may pass."""

    upstream: str
    """Name of the upstream of the service."""
    path: str = "/"
    """What it is asked for, with placeholders."""
    request_headers: list[str] | None = None
    """Request fields that it gets; default: all. X-Forwarded ones are always sent."""
    copy_headers: list[str] = field(default_factory=list)
    """Fields of its answer that the origin gets; those of clients are dropped."""
    client_headers: list[str] = field(default_factory=list)
    """Fields of an answer with 2xx that the client gets, in the response of the origin."""
    timeout: Seconds = 5.0


class Buffer(Section, frozen=True):
    """Buffer bodies in memory, and on disk when they get long."""

    request: bool = False
    """Send requests to the origin when they are complete."""
    response: bool = False
    """Take responses from the origin as fast as it sends them."""
    memory: Bytes = 64 * 1024
    """Bytes per body in memory; what is more goes to disk."""
    max_size: Bytes = 1024 * 1024 * 1024
    """Bytes per body; longer requests are answered 413, of longer responses the origin waits."""


class EarlyHints(Section, frozen=True):
    """Send 103 (Early Hints) with the links that the page had the last time."""


class ErrorPages(Section, frozen=True):
    """Send pages in place of error responses."""

    pages: dict[str, str]
    """Files by status (`404`) or class (`5xx`), read at start and on a reload."""
    origin: bool = False
    """Whether to replace the errors of origins, too."""


class Maintenance(Section, frozen=True):
    """Answer 503."""

    while_exists: str | None = None
    """File as long as which exists; default: always."""
    page: str | None = None
    """File to send."""
    retry_after: (
        Annotated[float, Meta(ge=1, le=limits.MAX_DURATION, extra={"unit": "seconds"})] | None
    ) = None
    allow: list[str] = field(default_factory=list)
    """Addresses and networks that pass all the same."""


class Mirror(Section, frozen=True):
    """Send copies of requests to another upstream, and compare the responses."""

    upstream: str
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the requests that are copied."""
    methods: list[str] = field(default_factory=lambda: ["GET", "HEAD", "OPTIONS"])
    """Requests with other methods may change something, and are not copied."""
    max_body: Bytes = 1024 * 1024
    """Bytes; requests with longer content are not copied."""
    max_running: Annotated[int, Meta(ge=1, le=10_000)] = MIRRORS_RUNNING
    """Copies per worker that run at once; further requests are not copied."""
    timeout: Seconds = MIRROR_TIMEOUT
    ignore_headers: list[str] = field(default_factory=list)
    """Fields of responses that are not compared, beside those that always differ."""


class Python(Section, frozen=True):
    """A filter written in Python."""

    filter: str
    """`module:Class`, or the name of an entry point."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class."""
    directory: str | None = None
    """Where the module is imported from; default: the directory of the configuration."""
    timeout: Seconds = FILTER_TIMEOUT
    """For each phase that is a coroutine."""


class FilterEntry(Section, frozen=True):
    """One filter: exactly one of these keys."""

    redirect: Redirect | None = None
    respond: Respond | None = None
    rewrite: Rewrite | None = None
    rewrite_location: RewriteLocation | None = None
    rewrite_cookies: RewriteCookies | None = None
    headers: Headers | None = None
    compress: Compress | None = None
    access: Access | None = None
    cors: Cors | None = None
    security_headers: SecurityHeaders | None = None
    basic_auth: BasicAuth | None = None
    forward_auth: ForwardAuth | None = None
    buffer: Buffer | None = None
    early_hints: EarlyHints | None = None
    error_pages: ErrorPages | None = None
    maintenance: Maintenance | None = None
    mirror: Mirror | None = None
    python: Python | str | None = None
    """A string is its `filter`."""

    @property
    def kind(self) -> str:
        """The key that is given; empty if there is none, or more than one."""
        given = [name for name in KINDS if getattr(self, name) is not None]
        return given[0] if len(given) == 1 else ""

    @property
    def needs_address(self) -> bool:
        """Whether it judges by the client's address, which must be validated then."""
        maintenance = self.maintenance
        return self.access is not None or (maintenance is not None and bool(maintenance.allow))

    def with_paths(self, at: Callable[[str | None], str | None]) -> FilterEntry:
        """The same with its file names resolved by `at`."""
        replace = msgspec.structs.replace
        if self.python is not None:
            written = self.python
            python = Python(filter=written) if isinstance(written, str) else written
            return replace(self, python=replace(python, directory=at(python.directory or ".")))
        if self.basic_auth is not None:
            auth = replace(self.basic_auth, htpasswd=at(self.basic_auth.htpasswd))
            return replace(self, basic_auth=auth)
        if self.error_pages is not None:
            pages = {key: at(name) for key, name in self.error_pages.pages.items()}
            return replace(self, error_pages=replace(self.error_pages, pages=pages))
        if self.maintenance is not None:
            switch, page = at(self.maintenance.while_exists), at(self.maintenance.page)
            changed = replace(self.maintenance, while_exists=switch, page=page)
            return replace(self, maintenance=changed)
        return self


KINDS = FilterEntry.__struct_fields__
"""The kinds of filters."""

ANSWERING = frozenset({"redirect", "respond"})
"""Kinds that answer every request, so that none reaches what is behind them."""
