"""`error_page`, as the filter `error_pages`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from quicedge.migrate.effects import Effect
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.outcomes import State
from quicedge.migrate.nginx.sites import Sites
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import UnsayableError
from quicedge.migrate.nginx.world import World


class ErrorPages:
    """Makes the filter of a route."""

    def __init__(self, world: World, sites: Sites) -> None:
        self._world = world
        self._note = world.notebook
        self._sites = sites

    def of(self, state: State, upstream: str) -> list[Filter]:
        """The filter for what an upstream serves; empty: no error has a page."""
        pages: dict[str, str] = {}
        note = self._note
        site = self._world.document.upstreams[upstream].keys
        is_site = "root" in site
        intercepts = is_site or state.scope.is_on("proxy_intercept_errors")
        for directive in state.scope.all("error_page"):
            *codes, page = directive.args
            plain = [code for code in codes if re.fullmatch(r"[45]\d\d", code)]
            if codes == ["497"]:
                note.translated(directive, "plain HTTP on a TLS port is redirected")
            elif not page.startswith("/") or "$" in page:
                words = "only files take the place of errors"
                note.left_out(directive, words, *_shown(codes))
            elif len(plain) < len(codes):
                if site.get("fallback") != page:
                    words = "the status of an error stays"
                    note.left_out(directive, words, *_shown(codes))
            elif plain == ["404"] and site.get("not_found") == page:
                words = "not_found of the site, without etag"
                note.different(directive, words, *visible.client("etag", "last-modified"))
            else:
                # Only origins say that something does not exist.
                replaced = plain if intercepts else [code for code in plain if code != "404"]
                self._error_page(directive, replaced, page, state, pages)
        if not pages:
            return []
        settings: dict[str, Any] = {"pages": pages}
        if intercepts:
            settings["origin"] = True
        note.translated(state.scope.last("proxy_intercept_errors"))
        return [{"error_pages": settings}]

    def _error_page(
        self, directive: Directive, codes: Sequence[str], page: str, state: State,
        pages: dict[str, str],
    ) -> None:  # fmt: skip
        try:
            path = self._sites.page_file(page, state)
        except UnsayableError as error:
            self._note.left_out(directive, str(error), *_shown(codes))
            return
        if codes and not os.path.exists(path):
            self._world.supply(f"{path}: the page for {', '.join(codes)} ({directive.place})")
        effects = visible.client(
            "etag", "last-modified", "cache-control", "accept-ranges", "set-cookie"
        )
        self._note.different(directive, "error_pages, with cache-control: no-store", *effects)
        pages.update({code: path for code in codes if code not in pages})


def _shown(codes: Sequence[str]) -> tuple[Effect, ...]:
    """The errors that clients see as they are, and not what nginx makes of them."""
    found = [visible.status("", code) for code in codes if not code.startswith("=")]
    fields = (visible.ERROR_FIELDS, *visible.client("location", "content-type"))
    return (*found, visible.BODY, visible.REACHED, *fields)
