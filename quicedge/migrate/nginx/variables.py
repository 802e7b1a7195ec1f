"""nginx's variables in texts, as placeholders of quicedge's templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

PART = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_NAME = re.compile(r"[a-z0-9_]+")


class UnsayableError(ValueError):
    """Something that `quicedge.toml` cannot say; the message says what."""


_PLAIN: Mapping[str, str] = {
    "remote_addr": "{client.ip}", "realip_remote_addr": "{client.ip}",
    "remote_port": "{client.port}", "host": "{host}", "http_host": "{authority}",
    "request_method": "{method}",
    "request_uri": "{uri}", "args": "{query}", "query_string": "{query}",
    "ssl_protocol": "{tls.version}", "ssl_cipher": "{tls.cipher}", "ssl_curve": "{tls.group}",
    "ssl_server_name": "{tls.server_name}", "scheme": "https", "https": "on",
    "proxy_add_x_forwarded_for": "{client.ip}", "dollar": "$",
}  # fmt: skip
"""Variables that have a placeholder, or one value here."""

DIVIDED = "\0"
"""Begins the value of a variable that is that of a `split_clients`, whose name follows."""

_UNKNOWN = "no placeholder for ${}"


@dataclass(frozen=True)
class Names:
    """What variables stand for at one place."""

    server_name: str = ""
    port: int = 443
    values: Mapping[str, str] = field(default_factory=dict)
    """Of `set`, `map` and groups: templates by name."""

    def with_values(self, values: Mapping[str, str]) -> Names:
        return replace(self, values={**self.values, **values})

    def lookup(self, name: str) -> str:
        """The template for a variable; raises UnsayableError."""
        if name in self.values:
            if self.values[name].startswith(DIVIDED):
                raise UnsayableError(_UNKNOWN.format(name))
            return self.values[name]
        if name in ("uri", "document_uri"):
            return "{path}"
        if name == "server_name":
            return literal(self.server_name)
        if name == "server_port":
            return str(self.port)
        if name in _PLAIN:
            return _PLAIN[name]
        for prefix, kind in (("http_", "header"), ("cookie_", "cookie"), ("arg_", "query")):
            argument = name.removeprefix(prefix)
            if argument != name and _NAME.fullmatch(argument.lower()):
                if kind == "header":
                    argument = argument.replace("_", "-")
                return f"{{{kind}.{argument}}}"
        raise UnsayableError(_UNKNOWN.format(name))


def literal(text: str) -> str:
    """Text that stands for itself in a template."""
    return text.replace("{", "{{").replace("}", "}}")


_ESCAPE = re.compile(r"\\([\\nrt])")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescaped(text: str) -> str:
    """A word of nginx's configuration with its escapes resolved."""
    return _ESCAPE.sub(lambda match: _ESCAPED[match[1]], text)


def variables(text: str) -> Iterator[str]:
    """The names of the variables in a text."""
    for match in PART.finditer(text):
        yield match[1] or match[2]


def single(text: str) -> str | None:
    """The name of the variable that is all of a text."""
    match = PART.fullmatch(text)
    return None if match is None else match[1] or match[2]


_QUERY = re.compile(
    r"\$(?:\{is_args\}|is_args)\$(?:\{(?:args|query_string)\}|args\b|query_string\b)"
)


def template(text: str, names: Names) -> str:
    """The template for a text with variables; raises UnsayableError."""
    text = unescaped(text)
    parts: list[str] = []
    at = 0
    for match in _QUERY.finditer(text):
        parts += [_plain(text[at : match.start()], names), "{?query}"]
        at = match.end()
    parts.append(_plain(text[at:], names))
    found = "".join(parts)
    return found.replace("{path}{?query}", "{uri}")


def _plain(text: str, names: Names) -> str:
    parts: list[str] = []
    at = 0
    for match in PART.finditer(text):
        parts += [literal(text[at : match.start()]), names.lookup(match[1] or match[2])]
        at = match.end()
    return "".join(parts) + literal(text[at:])


def constant(text: str, names: Names) -> str:
    """The value of a text that must not depend on the request; raises UnsayableError."""
    found = template(text, names)
    if re.search(r"(?<!\{)\{[^{]", found):
        raise UnsayableError(f"{text} depends on the request")
    return found.replace("{{", "{").replace("}}", "}")
