"""Semantic validation of the filters of routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from quicedge.config import filters
from quicedge.config.convert import join
from quicedge.config.filters import ANSWERING, KINDS, NO_DOMAIN, UPSTREAM, FilterEntry
from quicedge.config.networks import network_problems
from quicedge.config.passwords import bcrypt_problem
from quicedge.config.patterns import check_replacement, compile_pattern, replacement_parts
from quicedge.config.placeholders import Placeholder, parse_template
from quicedge.config.problems import Problem
from quicedge.config.python_objects import REFERENCE
from quicedge.config.url_prefix import SCHEME, split_url

_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH = re.compile(r"/[!-~]*")
_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/{]|[A-Za-z][A-Za-z0-9+.-]*://\{(?:host|authority)\}"
)

FRAMING = frozenset(
    (
        "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Fields by which messages are delimited, or that concern one connection: they are the edge's."""

Check = Callable[[str, Any], Iterator[Problem]]


def validate_filters(where: str, entries: Sequence[FilterEntry]) -> Iterator[Problem]:
    """Yield what is wrong with a list of filters."""
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        kind = entry.kind
        if not kind:
            given = [name for name in KINDS if getattr(entry, name) is not None]
            what = f"has {' and '.join(given)}" if given else "is empty"
            yield Problem(place, f"{what}; a filter has one key of {', '.join(KINDS)}")
            continue
        yield from _CHECKS[kind](join(place, kind), getattr(entry, kind))
        if kind in ANSWERING and index + 1 < len(entries):
            yield Problem(
                f"{where}[{index + 1}]", f"is never reached: the {kind} before it answers"
            )
            return


def answers_all(entries: Sequence[FilterEntry]) -> bool:
    """Whether a filter answers every request, so that no upstream is needed."""
    return any(entry.kind in ANSWERING for entry in entries)


def template_problem(text: str) -> str | None:
    """Describe what is wrong with a template; None: nothing."""
    try:
        parse_template(text)
    except ValueError as error:
        return f"{text!r} {error}"
    return None


def match_problem(text: str, pattern: str | None) -> str | None:
    """Describe which `{match...}` of a template the path_regex of the route does not have."""
    try:
        parts = parse_template(text)
        compiled = None if pattern is None else compile_pattern(pattern)
    except ValueError:
        return None  # reported in its own place
    for part in parts:
        if isinstance(part, Placeholder) and part.name == "match":
            if compiled is None:
                return f"{{match.{part.argument}}} has no effect: the route has no path_regex"
            try:
                check_replacement(compiled, f"\\g<{part.argument}>")
            except ValueError as error:
                return f"{{match.{part.argument}}} {error}"
    return None


def upstreams_in(entry: FilterEntry) -> Iterator[tuple[str, str]]:
    """The key and name of every upstream that a filter uses."""
    if entry.forward_auth is not None:
        yield "forward_auth.upstream", entry.forward_auth.upstream
    if entry.mirror is not None:
        yield "mirror.upstream", entry.mirror.upstream


def templates_in(entry: FilterEntry) -> Iterator[tuple[str, str]]:
    """The key and text of every template of a filter."""
    if entry.redirect is not None:
        yield "redirect.to", entry.redirect.to
    if entry.respond is not None:
        yield "respond.body", entry.respond.body
    if entry.rewrite is not None:
        for key in ("path", "host"):
            if (text := getattr(entry.rewrite, key)) is not None:
                yield f"rewrite.{key}", text
    if entry.rewrite_location is not None:
        yield from _templates_of("rewrite_location.map", entry.rewrite_location.map)
    if entry.rewrite_cookies is not None:
        for key in ("domain", "path"):
            yield from _templates_of(f"rewrite_cookies.{key}", getattr(entry.rewrite_cookies, key))
    if entry.forward_auth is not None:
        yield "forward_auth.path", entry.forward_auth.path
    if entry.headers is not None:
        for side in ("request", "response"):
            rules = getattr(entry.headers, side)
            for key in ("set", "default", "add") if rules is not None else ():
                for name, text in getattr(rules, key).items():
                    yield f"headers.{side}.{key}.{name}", text


def _templates_of(where: str, table: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for old, new in table.items():
        place = f"{where}.{old}"
        if not old.startswith("~"):
            yield place, old
        yield place, new


# --- kinds ----------------------------------------------------------------------------------------


def _redirect(where: str, settings: filters.Redirect) -> Iterator[Problem]:
    if problem := _target_problem(settings.to):
        yield Problem(f"{where}.to", problem)


def _target_problem(to: str) -> str | None:
    """Describe what is wrong with the target of redirects; None: nothing."""
    if problem := template_problem(to):
        return problem
    if to.startswith("//"):
        return f"{to!r} has no scheme; write {'https:' + to!r}"
    if not to.startswith(("/", "{uri}", "{path}")) and not _URL.match(to):
        return f"{to!r} is neither a path nor a URL; write {'https://' + to!r}"
    return _encoding_problem(to)


def _encoding_problem(text: str) -> str | None:
    if re.fullmatch(r"[!-~]+", text):
        return None
    return f"{text!r} has characters that must be percent-encoded in a URL"


def _respond(where: str, settings: filters.Respond) -> Iterator[Problem]:
    if problem := template_problem(settings.body):
        yield Problem(f"{where}.body", problem)
    if settings.status in (204, 205, 304) and settings.body:
        yield Problem(f"{where}.body", f"has no effect with the status {settings.status}")


def _rewrite(where: str, settings: filters.Rewrite) -> Iterator[Problem]:
    steps = ("strip_prefix", "pattern", "add_prefix", "path", "host")
    if all(getattr(settings, key) is None for key in steps) and settings.query == "keep":
        yield Problem(where, f"changes nothing; set one of {', '.join(steps)}")
    for key in ("strip_prefix", "add_prefix"):
        prefix = getattr(settings, key)
        if prefix is not None and not _PATH.fullmatch(prefix):
            yield Problem(f"{where}.{key}", f"{prefix!r} is not a path such as /app")
    if settings.pattern is not None:
        try:
            pattern = compile_pattern(settings.pattern)
        except ValueError as error:
            yield Problem(f"{where}.pattern", f"{settings.pattern!r} {error}")
        else:
            try:
                check_replacement(pattern, settings.replacement)
            except ValueError as error:
                yield Problem(f"{where}.replacement", f"{settings.replacement!r} {error}")
    elif settings.replacement:
        yield Problem(f"{where}.replacement", "has no effect without pattern")
    if settings.path is not None:
        if problem := template_problem(settings.path):
            yield Problem(f"{where}.path", problem)
        elif not settings.path.startswith(("/", "{path}", "{uri}")):
            yield Problem(f"{where}.path", f"{settings.path!r} does not start with /")
        for key in ("strip_prefix", "pattern", "add_prefix"):
            if getattr(settings, key) is not None:
                yield Problem(f"{where}.{key}", "has no effect with path, which replaces it all")
    if settings.host is not None and (problem := template_problem(settings.host)):
        yield Problem(f"{where}.host", problem)


def _rewrite_location(where: str, settings: filters.RewriteLocation) -> Iterator[Problem]:
    for key in ("map", "fields"):
        if not getattr(settings, key):
            yield Problem(f"{where}.{key}", "must not be empty: nothing would be changed")
    for old, new in settings.map.items():
        if problem := location_problem(old, new):
            yield Problem(f"{where}.map.{old}", problem)
    for index, name in enumerate(settings.fields):
        yield from _field_name(f"{where}.fields[{index}]", name)


def location_problem(old: str, new: str) -> str | None:
    """Describe what is wrong with a rule of `rewrite_location`; None: nothing."""
    if old.startswith("~"):
        return _pattern_problem(old[1:], new) or _encoding_problem(new)
    if problem := _start_problem(old):
        return problem
    if not SCHEME.fullmatch(old.encode()):
        return _target_problem(new)
    if new == "{scheme}://" or SCHEME.fullmatch(new.encode()):
        return None
    return f"{new!r} is not a scheme such as 'https://', as {old!r} is"


def _start_problem(old: str) -> str | None:
    """Describe why the beginning of a URL is none; None: it is."""
    if old == UPSTREAM or SCHEME.fullmatch(old.encode()):
        return None
    if problem := template_problem(old):
        return problem
    if re.search(r"[?#]", old):
        return f"{old!r} has a query or a fragment; the rest of a URL is kept"
    is_path = re.match(r"/(?!/)", old)
    is_url = SCHEME.match(old.encode()) and ("{" in old or split_url(old.encode()))
    if is_path or is_url:
        return _encoding_problem(old)
    return f"{old!r} is neither a path nor the beginning of a URL such as http://127.0.0.1:8000/"


def _pattern_problem(pattern: str, replacement: str) -> str | None:
    """Describe what is wrong with a regular expression or its replacement, a template."""
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        return f"{pattern!r} {error}"
    try:
        check_replacement(compiled, replacement)
    except ValueError as error:
        return f"{replacement!r} {error}"
    texts = (part for part in replacement_parts(replacement) if isinstance(part, str))
    return next(filter(None, map(template_problem, texts)), None)


def _rewrite_cookies(where: str, settings: filters.RewriteCookies) -> Iterator[Problem]:
    if not (settings.domain or settings.path or settings.flags):
        yield Problem(where, "changes nothing; set domain, path or flags")
    for key, table in (("domain", settings.domain), ("path", settings.path)):
        for old, new in table.items():
            if problem := cookie_problem(key, old, new):
                yield Problem(f"{where}.{key}.{old}", problem)
    has_any = False
    for name, flags in settings.flags.items():
        place = f"{where}.flags.{name}"
        if has_any:
            yield Problem(place, "is never reached: '*' before it is for all cookies")
        has_any = has_any or name == "*"
        if problem := cookie_flags_problem(name, flags):
            yield Problem(place, problem)


def cookie_problem(key: str, old: str, new: str) -> str | None:
    """Describe what is wrong with a rule for the `domain` or `path` of cookies; None: nothing."""
    removes = key == "domain" and new == NO_DOMAIN
    if old.startswith("~"):
        if problem := _pattern_problem(old[1:], "" if removes else new):
            return problem
        return f"{new!r} has a semicolon; set attributes by flags" if ";" in new else None
    texts = [] if old == UPSTREAM else [old]
    texts += [] if removes else [new]
    for text in texts:
        if problem := template_problem(text):
            return problem
        if key == "domain" and not _DOMAIN.fullmatch(text):
            return f"{text!r} is not a domain such as 'example.com'"
        if key == "path" and not _COOKIE_PATH.fullmatch(text):
            return f"{text!r} is not a path such as '/app'"
    return None


def cookie_flags_problem(name: str, flags: Sequence[filters.CookieFlag]) -> str | None:
    """Describe what is wrong with the flags of cookies of a name; None: nothing."""
    if name.startswith("~"):
        try:
            compile_pattern(name[1:])
        except ValueError as error:
            return f"{name[1:]!r} {error}"
    elif not _FIELD_NAME.fullmatch(name):
        return f"{name!r} is not the name of a cookie"
    if not flags:
        return "must not be empty; write 'secure', for instance"
    by_attribute: dict[str, filters.CookieFlag] = {}
    for flag in flags:
        other = by_attribute.setdefault(flag.attribute, flag)
        if other is not flag:
            return f"{other.value!r} and {flag.value!r} exclude each other"
    return None


_DOMAIN = re.compile(r"[A-Za-z0-9._{}-]+|\[[0-9A-Fa-f:.]+\]")
_COOKIE_PATH = re.compile(r"/[!-:<-~]*")


def _headers(where: str, settings: filters.Headers) -> Iterator[Problem]:
    if settings.request is None and settings.response is None:
        yield Problem(where, "changes nothing; set request or response")
    for side in ("request", "response"):
        rules = getattr(settings, side)
        if rules is not None:
            yield from _field_rules(f"{where}.{side}", rules, is_request=side == "request")


def _field_rules(where: str, rules: filters.FieldRules, *, is_request: bool) -> Iterator[Problem]:
    if not (rules.remove or rules.set or rules.default or rules.add):
        yield Problem(where, "changes nothing; set remove, set, default or add")
    for index, name in enumerate(rules.remove):
        yield from _field_name(f"{where}.remove[{index}]", name.removesuffix("*") or name)
        if name.lower() == "host":
            yield Problem(f"{where}.remove[{index}]", "requests always have a host")
    for key in ("set", "default", "add"):
        for name, value in getattr(rules, key).items():
            place = f"{where}.{key}.{name}"
            yield from _field_name(place, name)
            if name.lower() == "host" and (key != "set" or not is_request):
                yield Problem(place, "can only be set, and only in requests")
            if problem := template_problem(value):
                yield Problem(place, problem)
            elif not value.isascii():
                yield Problem(place, f"{value!r} is not ASCII, as values of fields must be")


def _field_name(where: str, name: str) -> Iterator[Problem]:
    if not _FIELD_NAME.fullmatch(name):
        yield Problem(where, f"{name!r} is not the name of a header field")
    elif name.lower() in FRAMING:
        yield Problem(where, f"{name!r} frames messages and is the edge's own")


def _compress(where: str, settings: filters.Compress) -> Iterator[Problem]:
    if settings.encodings is not None and not settings.encodings:
        yield Problem(f"{where}.encodings", "must not be empty")
    for index, name in enumerate(settings.types):
        if not re.fullmatch(r"[a-z0-9.+-]+/(?:[a-z0-9.+-]+|[a-z0-9.+-]*\*)", name):
            yield Problem(f"{where}.types[{index}]", f"{name!r} is not a media type or text/*")
    yield from _names(f"{where}.except_with", settings.except_with)


def _access(where: str, settings: filters.Access) -> Iterator[Problem]:
    if not settings.allow and not settings.deny:
        yield Problem(where, "lets everybody pass; set allow or deny")
    for key in ("allow", "deny"):
        yield from network_problems(f"{where}.{key}", getattr(settings, key))
    for index, text in enumerate(settings.deny):
        if text in settings.allow:
            yield Problem(f"{where}.deny[{index}]", f"{text!r} is also in allow")


def _cors(where: str, settings: filters.Cors) -> Iterator[Problem]:
    if not settings.origins:
        yield Problem(f"{where}.origins", "must not be empty; '*' stands for any")
    for index, origin in enumerate(settings.origins):
        place = f"{where}.origins[{index}]"
        if origin == "*":
            if len(settings.origins) > 1:
                yield Problem(place, "'*' stands for all others; remove them")
            if settings.credentials:
                yield Problem(place, "'*' is not allowed with credentials; name the origins")
        elif not _ORIGIN.fullmatch(origin):
            yield Problem(place, f"{origin!r} is not an origin such as https://app.example.com")
    for key in ("methods", "headers", "expose"):
        names = [name for name in getattr(settings, key) if (key, name) != ("headers", "*")]
        yield from _names(f"{where}.{key}", names)


def _security_headers(where: str, settings: filters.SecurityHeaders) -> Iterator[Problem]:
    for key in ("hsts_subdomains", "hsts_preload"):
        if getattr(settings, key) and not settings.hsts_max_age:
            yield Problem(f"{where}.{key}", "has no effect with hsts_max_age = 0")
    if settings.hsts_preload and not (
        settings.hsts_subdomains and settings.hsts_max_age >= _HSTS_PRELOAD_MIN
    ):
        yield Problem(
            f"{where}.hsts_preload", "requires hsts_subdomains and a hsts_max_age of one year"
        )
    for key in ("referrer_policy", "opener_policy", "content_security_policy",
                "permissions_policy"):  # fmt: skip
        value = getattr(settings, key)
        if value is not None and not value.isascii():
            yield Problem(f"{where}.{key}", f"{value!r} is not ASCII, as values of fields must be")


def _basic_auth(where: str, settings: filters.BasicAuth) -> Iterator[Problem]:
    if settings.htpasswd is None and not settings.users:
        yield Problem(where, "lets nobody pass; set htpasswd or users")
    for name, hashed in settings.users.items():
        place = f"{where}.users.{name}"
        if ":" in name:
            yield Problem(place, "names cannot contain a colon (RFC 7617 section 2)")
        if problem := bcrypt_problem(hashed.encode()):
            yield Problem(place, problem)
    if settings.user_header is not None:
        yield from _field_name(f"{where}.user_header", settings.user_header)
    if not settings.realm.isascii():
        yield Problem(f"{where}.realm", f"{settings.realm!r} is not ASCII")


def _forward_auth(where: str, settings: filters.ForwardAuth) -> Iterator[Problem]:
    if problem := template_problem(settings.path):
        yield Problem(f"{where}.path", problem)
    elif not settings.path.startswith(("/", "{path}", "{uri}")):
        yield Problem(f"{where}.path", f"{settings.path!r} does not start with /")
    yield from _names(f"{where}.request_headers", settings.request_headers or ())
    for key in ("copy_headers", "client_headers"):
        for index, name in enumerate(getattr(settings, key)):
            yield from _field_name(f"{where}.{key}[{index}]", name)


def _buffer(where: str, settings: filters.Buffer) -> Iterator[Problem]:
    if not settings.request and not settings.response:
        yield Problem(where, "buffers nothing; set request or response")
    if settings.max_size < settings.memory:
        yield Problem(f"{where}.max_size", f"is less than memory ({settings.memory})")


def _early_hints(where: str, settings: filters.EarlyHints) -> Iterator[Problem]:
    return iter(())


def _error_pages(where: str, settings: filters.ErrorPages) -> Iterator[Problem]:
    if not settings.pages:
        yield Problem(f"{where}.pages", "must not be empty")
    for key in settings.pages:
        if not re.fullmatch(r"[45](?:[0-9][0-9]|xx)", key):
            yield Problem(f"{where}.pages.{key}", f"{key!r} is not an error such as 404 or 5xx")


def _maintenance(where: str, settings: filters.Maintenance) -> Iterator[Problem]:
    yield from network_problems(f"{where}.allow", settings.allow)


def _names(where: str, names: Sequence[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if not _FIELD_NAME.fullmatch(name):
            yield Problem(f"{where}[{index}]", f"{name!r} is not a name that can occur")


_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[A-Za-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?"
)
_HSTS_PRELOAD_MIN = 365 * 86400


def _mirror(where: str, settings: filters.Mirror) -> Iterator[Problem]:
    if not settings.methods:
        yield Problem(f"{where}.methods", "must not be empty: nothing would be copied")
    for index, method in enumerate(settings.methods):
        if not re.fullmatch(r"[A-Z]+", method) or method == "CONNECT":
            yield Problem(f"{where}.methods[{index}]", f"{method!r} is not a method such as 'GET'")
    yield from _names(f"{where}.ignore_headers", settings.ignore_headers)


_PYTHON = re.compile(REFERENCE + r"|[\w.-]+")


def _python(where: str, given: filters.Python | str) -> Iterator[Problem]:
    name = given if isinstance(given, str) else given.filter
    if not _PYTHON.fullmatch(name):
        place = where if isinstance(given, str) else join(where, "filter")
        yield Problem(place, f"{name!r} is neither module:Class nor the name of an entry point")


_CHECKS: dict[str, Check] = {
    "compress": _compress,
    "access": _access,
    "cors": _cors,
    "security_headers": _security_headers,
    "basic_auth": _basic_auth,
    "forward_auth": _forward_auth,
    "buffer": _buffer,
    "early_hints": _early_hints,
    "error_pages": _error_pages,
    "maintenance": _maintenance,
    "redirect": _redirect,
    "respond": _respond,
    "rewrite": _rewrite,
    "rewrite_location": _rewrite_location,
    "rewrite_cookies": _rewrite_cookies,
    "headers": _headers,
    "mirror": _mirror,
    "python": _python,
}
