"""Files: `root`, `alias`, `index`, `try_files`, `autoindex`, `types` and error pages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quicedge.http.media_types import TYPES
from quicedge.migrate.effects import Effect
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.outcomes import State
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.upstreams import Upstreams
from quicedge.migrate.nginx.variables import UnsayableError, constant, template
from quicedge.migrate.nginx.world import World


class Sites:
    """Makes upstreams of files."""

    def __init__(self, world: World, upstreams: Upstreams) -> None:
        self._world = world
        self._note = world.notebook
        self._upstreams = upstreams

    def serve(self, state: State) -> tuple[str, list[Filter]] | None:
        """The upstream for the files of a location, and the filters that lead to them; None: there
        are none. Raises UnsayableError."""
        own = [directive for block in state.entered for directive in block]
        alias = next((d for d in own if d.name == "alias"), None)
        root = state.scope.last("root")
        filters: list[Filter] = [{"rewrite": dict(rewrite)} for rewrite in state.rewrites]
        if alias is not None:
            directory, more = self._alias(alias, state)
            filters += more
            where = alias
        elif root is not None:
            directory, where = self._directory(root, state), root
        else:
            return None
        keys: dict[str, Any] = {"root": directory}
        keys |= self._index(state.scope)
        if state.scope.is_on("autoindex"):
            keys["listing"] = True
        self._note.translated(state.scope.last("autoindex"))
        keys |= self._tried(own)
        keys |= self._not_found(state, keys)
        keys |= self._precompressed(state.scope)
        keys |= self._types(state.scope)
        comment = f"{os.path.basename(where.file)}:{where.line}"
        upstream = self._upstreams.of_files(keys, _name_of(directory), comment)
        return upstream, filters

    def page_file(self, page: str, state: State) -> str:
        """The file that nginx sends for the path of a page; raises UnsayableError."""
        around = [d for d in state.server if d.name == "location" and d.args == ["=", page]]
        if any(
            inner.name == "return" or inner.name.endswith("_pass")
            for d in around
            for inner in d.body
        ):
            raise UnsayableError("only files take the place of errors")
        scope = Scope((*state.scope.blocks[:2], *(d.body for d in around)))
        inside = replace(state, scope=scope)
        return f"{self.directory_of(inside).rstrip('/')}{page}"

    def directory_of(self, state: State) -> str:
        """The root of the files of a location; raises UnsayableError."""
        root = state.scope.last("root")
        if root is None:
            raise UnsayableError("there is no root")
        return self._directory(root, state)

    def _directory(self, root: Directive, state: State) -> str:
        names = state.asked.names
        if state.asked.is_one_host:
            names = names.with_values({"host": state.asked.host, "http_host": state.asked.host})
        try:
            path = self._world.file(constant(root.args[0], names))
        except UnsayableError as error:
            self._note.left_out(root, f"{error}; answered 501", *visible.ANSWER)
            raise
        if os.path.isabs(root.args[0]) or self._world.prefix is not None:
            self._note.translated(root)
        else:
            words = f"as {path}: which directory it is relative to depends on how nginx was built"
            self._note.different(root, words, visible.STATUS, visible.BODY)
        return path.rstrip("/") or "/"

    def _alias(self, alias: Directive, state: State) -> tuple[str, list[Filter]]:
        text, location = alias.args[0], state.location
        if location.modifier == "=":
            path = self._world.file(constant(text, state.asked.names))
            self._note.translated(alias)
            if text.endswith("/"):
                return path, [{"rewrite": {"path": "/"}}]
            rewrite = {"path": f"/{os.path.basename(path)}"}
            return os.path.dirname(path), [{"rewrite": rewrite}]
        if "$" in text:
            fixed = text.partition("$")[0].rpartition("/")[0]
            rest = template(text[len(fixed) :], state.asked.names)
            self._note.translated(alias)
            return self._world.file(fixed), [{"rewrite": {"path": rest}}]
        if not location.is_prefix:
            self._note.left_out(alias, "names a file for many paths", visible.STATUS)
            raise UnsayableError("an alias without a variable in a regular expression")
        prefix = location.pattern
        if prefix.endswith("/") != text.endswith("/"):
            words = "as if both or none of location and alias ended with a slash"
            self._note.different(alias, words, visible.STATUS)
        else:
            self._note.translated(alias)
        strip = prefix.rstrip("/")
        filters = [{"rewrite": {"strip_prefix": strip}}] if strip else []
        return self._world.file(text).rstrip("/") or "/", filters

    def _index(self, scope: Scope) -> dict[str, Any]:
        index = scope.last("index")
        if index is None:
            return {}
        names = [name for name in index.args if re.fullmatch(r"[^/.$][^/$]*", name)]
        plain = [name for name in names if not name.endswith(".php")]
        if plain == index.args:
            self._note.translated(index)
        else:
            words = "without what is no file here: " + ", ".join(
                name for name in index.args if name not in plain
            )
            effects = [visible.status("", 404), visible.REACHED]
            if not plain:
                effects += [visible.status("", 200), visible.status(403), visible.BODY]
            self._note.different(index, words, *effects)
        return {"index": plain} if plain and plain != ["index.html"] else {}

    def _tried(self, own: list[Directive]) -> dict[str, Any]:
        tried = next((d for d in own if d.name == "try_files"), None)
        if tried is None:
            return {}
        tests, last = tried.args[:-1], tried.args[-1]
        found: dict[str, Any] = {}
        differences: list[str] = []
        effects: list[Effect] = []
        for test in tests:
            if test in ("$uri", "$uri/", "/$uri", "$uri/index.html"):
                continue
            if test in ("$uri.html", "${uri}.html"):
                found["clean_urls"] = True
                differences.append("names with .html are redirected to those without")
                effects += [visible.status(200, 301), *visible.client("location")]
            else:
                differences.append(f"without {test}")
                effects.append(visible.status("", 404))
        if last == "=404":
            pass
        elif last.startswith("="):
            differences.append(f"404 in place of {last[1:]}")
            effects.append(visible.status(last[1:], 404))
        elif last.startswith("/") and "$" not in last.partition("?")[0] and ".php" not in last:
            found["fallback"] = last.partition("?")[0]
            differences.append("the fallback is not for names with a dot")
            effects.append(visible.status(200, 404))
        else:
            differences.append(f"404 in place of {last}, which cannot be said")
            effects += [visible.status("", 404), visible.REACHED]
        if differences:
            self._note.different(tried, "; ".join(differences), *effects)
        else:
            self._note.translated(tried)
        return found

    def _not_found(self, state: State, keys: Mapping[str, Any]) -> dict[str, Any]:
        """An error page that is a file of the site."""
        for directive in state.scope.all("error_page"):
            *codes, page = directive.args
            if not page.startswith("/") or "$" in page or "404" not in codes:
                continue
            try:
                if self.page_file(page, state) != f"{keys['root']}{page}":
                    continue
            except UnsayableError:
                continue
            answers = [code for code in codes if code.startswith("=")]
            if not answers:
                return {"not_found": page}
            if answers in (["=200"], ["="]) and "fallback" not in keys:
                words = "a fallback, which is not for names with a dot"
                self._note.different(directive, words, visible.status(200, 404))
                return {"fallback": page}
        return {}

    def _precompressed(self, scope: Scope) -> dict[str, Any]:
        found = []
        for name, coding in (("zstd", "zstd"), ("brotli", "br"), ("gzip", "gzip")):
            directive = scope.last(f"{name}_static")
            if directive is None:
                continue
            if directive.args[0] in ("on", "always"):
                found.append(coding)
                words = "with vary, and for files that are not older than theirs"
                effects = visible.client("vary", "content-encoding")
                self._note.different(directive, words, *effects)
            else:
                self._note.translated(directive)
        return {"precompressed": found} if found else {}

    def _types(self, scope: Scope) -> dict[str, Any]:
        """Media types that quicedge does not know, or has others for."""
        found: dict[str, str] = {}
        for block in scope.all("types"):
            self._note.translated(block)
            for entry in block.body:
                self._type(entry, found)
        default = scope.last("default_type")
        if default is not None:
            if default.args[0] == "application/octet-stream":
                self._note.translated(default)
            else:
                words = "files of unknown types are application/octet-stream"
                self._note.different(default, words, *visible.client("content-type"))
        return {"mime_types": found} if found else {}

    def _type(self, entry: Directive, found: dict[str, str]) -> None:
        if entry.name == "include":
            return
        other = []
        for extension in entry.args:
            if "." in extension:
                continue  # no file has it: nginx takes what follows the last dot
            known = TYPES.get(extension.lower().encode(), b"").decode()
            if known.partition(";")[0] != entry.name:
                other.append(extension)
        if not other:
            self._note.translated(entry, "as quicedge has it")
        elif os.path.basename(entry.file) == "mime.types":
            words = "quicedge has its own table; mime_types of the upstream adds to it"
            self._note.different(entry, words, *visible.client("content-type"))
        else:
            self._note.translated(entry)
            found.update({extension.lower(): entry.name for extension in other})


_USUAL = frozenset(
    (
        "", "build", "current", "data", "dist", "files", "home", "htdocs", "html", "nginx", "opt",
        "public", "public_html", "share", "srv", "usr", "var", "web", "www",
    )
)  # fmt: skip
"""Names of directories that say nothing of what is in them."""


def _name_of(directory: str) -> str:
    """A name for the upstream of a directory."""
    return next((name for name in reversed(directory.split("/")) if name not in _USUAL), "files")
