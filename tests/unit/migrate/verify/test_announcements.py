"""Which lines of a report announce a difference."""

from __future__ import annotations

import pytest

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.report import Line, Note, Status
from quicedge.migrate.verify.announcements import Announcements

ETAG = Effect(Side.CLIENT, Aspect.HEADER, "etag")
FILE = "nginx.conf"


def directive(name: str, *args: str, line: int, block: list[Directive] | None = None) -> Directive:
    return Directive(name, list(args), FILE, line, block)


IN_LOCATION = directive("etag", "off", line=4)
LOCATION = directive("location", "/a", line=3, block=[IN_LOCATION])
OTHER = directive("location", "/b", line=5, block=[])
IN_SERVER = directive("gzip", "on", line=6)
SERVER = directive("server", line=2, block=[LOCATION, OTHER, IN_SERVER])
IN_HTTP = directive("gzip_vary", "on", line=9)
TOP = [directive("http", line=1, block=[SERVER, directive("server", line=8, block=[]), IN_HTTP])]


def announced(of: Directive, effect: Effect = ETAG) -> Announcements:
    line = Line(of.file, of.line, of.text, Status.DIFFERENT, "words", (effect,))
    return Announcements([line], [], TOP)


def covers(aspect: Aspect, name: str, other: str) -> bool:
    """Whether an announcement of one name covers a difference of another one."""
    return Effect(Side.CLIENT, aspect, name).covers(Effect(Side.CLIENT, aspect, other))


def test_a_line_in_a_location_announces_differences_of_its_requests_alone():
    announcements = announced(IN_LOCATION)
    assert announcements.of(ETAG, (TOP[0], SERVER, LOCATION)) == "nginx.conf:4 etag off;"
    assert announcements.of(ETAG, (TOP[0], SERVER, OTHER)) is None


def test_a_location_that_is_left_out_announces_for_itself():
    assert announced(OTHER).of(ETAG, (SERVER, OTHER)) == "nginx.conf:5 location /b { }"
    assert announced(OTHER).of(ETAG, (SERVER, LOCATION)) is None


def test_a_line_in_a_server_announces_for_its_locations():
    assert announced(IN_SERVER).of(ETAG, (SERVER, OTHER)) is not None
    assert announced(IN_SERVER).of(ETAG, (TOP[0].body[1],)) is None


def test_other_lines_and_notes_announce_for_all():
    assert announced(IN_HTTP).of(ETAG, ()) is not None
    notes = Announcements([], [Note("etags differ", (ETAG,))])
    assert notes.of(ETAG, (SERVER,)) == "etags differ"


@pytest.mark.parametrize("aspect", [Aspect.HOST, Aspect.TARGET])
@pytest.mark.parametrize("name", ["location", "refresh", "set-cookie"])
def test_where_origins_are_asked_for_something_else_they_may_tell_of_it(aspect, name):
    told = Effect(Side.CLIENT, Aspect.HEADER, name)
    line = announced(IN_LOCATION, Effect(Side.ORIGIN, aspect))
    assert line.of(told, (SERVER, LOCATION)) is not None
    assert line.of(told, (SERVER, OTHER)) is None
    assert line.of(ETAG, (SERVER, LOCATION)) is None
    # Not where the target is written in another way, and no more.
    encoded = announced(IN_LOCATION, Effect(Side.ORIGIN, Aspect.TARGET, "encoding"))
    assert encoded.of(told, (SERVER, LOCATION)) is None


def test_only_the_announced_effect_is_covered():
    any_header = Effect(Side.CLIENT, Aspect.HEADER)
    vary = Effect(Side.CLIENT, Aspect.HEADER, "vary")
    assert announced(IN_HTTP).of(vary, ()) is None
    assert announced(IN_HTTP, any_header).of(vary, ()) is not None
    assert announced(IN_HTTP, any_header).of(Effect(Side.ORIGIN, Aspect.HEADER, "vary"), ()) is None
    assert announced(IN_HTTP).of(Effect(Side.CLIENT, Aspect.STATUS), ()) is None


def test_an_effect_on_the_status_may_name_one_side_or_both():
    for name in ("", "404->405", "->405", "404->"):
        assert covers(Aspect.STATUS, name, "404->405")
    for name in ("404->403", "->403", "413->", "405"):
        assert not covers(Aspect.STATUS, name, "404->405")


def test_the_most_exact_announcement_is_told():
    exact = Effect(Side.CLIENT, Aspect.STATUS, "404->405")
    any_status = Effect(Side.CLIENT, Aspect.STATUS)
    announcements = Announcements([], [Note("any", (any_status,)), Note("methods", (exact,))])
    assert announcements.of(exact, ()) == "methods"
    assert announcements.of(Effect(Side.CLIENT, Aspect.STATUS, "200->404"), ()) == "any"


def test_fields_of_errors_and_websockets_have_names_of_their_own():
    for name in ("", "error x-a", "error", "x-a"):
        assert covers(Aspect.HEADER, name, "error x-a")
    for name in ("101 x-a", "101", "x", "error x"):
        assert not covers(Aspect.HEADER, name, "error x-a")
    assert not covers(Aspect.HEADER, "error x-a", "x-a")
