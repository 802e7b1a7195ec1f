"""Compares what came of a request at both edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.verify import noise
from quicedge.migrate.verify.message import (
    Headers,
    Outcome,
    Response,
    Sample,
    Seen,
    value_of,
    values_of,
)
from quicedge.migrate.verify.player import is_redirect_to_https

_SHOWN = 160
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Difference:
    """One difference, as it is shown."""

    effect: Effect
    original: str
    ours: str


class Comparison:
    """Compares outcomes of one verification."""

    def __init__(self, substitution: noise.Noise, groups: Mapping[str, str]) -> None:
        """`groups`: addresses of origins, each with a name for the upstream that it belongs to;
        which server of an upstream is asked is a matter of its turn."""
        self._noise = substitution
        self._groups = groups

    def differences(self, sample: Sample, original: Outcome, ours: Outcome) -> list[Difference]:
        if sample.burst > 1:
            return list(_of_bursts(original, ours))
        found: list[Difference] = []
        if ours.over_tls is not None and not is_redirect_to_https(
            sample, self._normal_redirect(sample, original.response)
        ):
            found.append(_client(Aspect.SCHEME, "plain HTTP", "redirected to https"))
            ours = Outcome(self._as_plain(sample, ours.over_tls.response), ours.over_tls.seen)
        same_maker = noise.is_original_s_own(original) is noise.is_ours(ours.response)
        found += self._of_responses(sample, original.response, ours.response, same_maker)
        found += self._of_requests(original.seen, ours.seen)
        return [_anonymous(one, original.response.client[0]) for one in found]

    def _normal_redirect(self, sample: Sample, response: Response) -> Response:
        """The original's response with Location as its clients would have seen it."""
        headers = [
            (name, noise.resolved(sample, self._noise.of_original(value)))
            if name == "location" else (name, value)
            for name, value in response.headers
        ]  # fmt: skip
        return Response(response.status, headers)

    def _as_plain(self, sample: Sample, response: Response) -> Response:
        """Our response over TLS with Location as a client of plain HTTP would see it."""
        own = f"https://{sample.host}/"
        headers = []
        for name, value in response.headers:
            if name == "location":
                value = noise.resolved(sample, self._noise.of_ours(value))
                if value.startswith(own):
                    value = f"http://{sample.authority}/{value.removeprefix(own)}"
            headers.append((name, value))
        return replace(response, headers=headers)

    # --- clients ----------------------------------------------------------------------------

    def _of_responses(
        self, sample: Sample, original: Response, ours: Response, same_maker: bool
    ) -> Iterator[Difference]:
        """`same_maker`: either origins or the edges themselves have made both; otherwise, or if one
        alone is an error, all of the responses differs, and the status says so."""
        if (original.status, original.failure) != (ours.status, ours.failure):
            name = f"{original.status}->{ours.status}"
            yield _client(Aspect.STATUS, *self._answers(sample, original, ours), name)
            if not same_maker or not _is_of_one_kind(original.status, ours.status):
                return
        same_content = original.status == ours.status and not (
            noise.is_own_page(original, is_original=True)
            and noise.is_own_page(ours, is_original=False)
        )
        was_body, now_body = noise.content_of(original), noise.content_of(ours)
        if same_content and was_body != now_body:
            yield _client(Aspect.BODY, _content(was_body), _content(now_body))
        if not same_maker:
            return
        for name in noise.names_of(original.headers, ours.headers):
            if name in noise.OF_RESPONSES or (name in noise.CONTENT and not same_content):
                continue
            if name == "location" and original.status != ours.status:
                continue  # Told with the statuses.
            was = self._values(sample, name, original.headers, is_original=True)
            now = self._values(sample, name, ours.headers, is_original=False)
            if was != now and not _same_values(name, was, now):
                if name == "etag" and _is_of_a_file(original, ours):
                    continue
                is_error = max(original.status, ours.status) >= 400
                where = "101 " if ours.status == 101 else "error " if is_error else ""
                yield _client(Aspect.HEADER, _shown(was), _shown(now), where + name)

    def _values(
        self, sample: Sample, name: str, headers: Headers, *, is_original: bool
    ) -> list[str]:
        undo = self._noise.of_original if is_original else self._noise.of_ours
        values = [undo(value) for value in values_of(headers, name)]
        if name in ("location", "content-location"):
            return [noise.resolved(sample, value) for value in values]
        if name == "vary":
            return sorted(part.strip().lower() for value in values for part in value.split(","))
        # Several lines of a field are one list (RFC 9110 section 5.3), but for this one.
        return values if name == "set-cookie" or not values else [", ".join(values)]

    def _answers(self, sample: Sample, original: Response, ours: Response) -> tuple[str, str]:
        """Both in short: status and Location, or why there is no response."""
        was, now = (
            self._values(sample, "location", response.headers, is_original=response is original)
            for response in (original, ours)
        )
        return _answer(original, was), _answer(ours, now)

    # --- origins ----------------------------------------------------------------------------

    def _of_requests(self, original: list[Seen], ours: list[Seen]) -> Iterator[Difference]:
        was = sorted(original, key=self._order)
        now = sorted(ours, key=self._order)
        if len(was) != len(now):
            yield _origin(Aspect.REACHED, self._asked(original), self._asked(ours))
            return
        for before, after in zip(was, now, strict=True):
            yield from self._of_request(before, after)

    def _of_request(self, was: Seen, now: Seen) -> Iterator[Difference]:
        if self._group(was) != self._group(now):
            yield _origin(Aspect.SERVER, self._group(was), self._group(now))
        if was.method != now.method:
            yield _origin(Aspect.METHOD, was.method, now.method)
        if was.target != now.target:
            name = "encoding" if noise.same_path(was.target, now.target) else ""
            yield _origin(Aspect.TARGET, was.target, now.target, name)
        host = self._noise.of_original(value_of(was.headers, "host") or "")
        our_host = self._noise.of_ours(value_of(now.headers, "host") or "")
        if host != our_host:
            yield _origin(Aspect.HOST, host, our_host)
        for name in noise.names_of(was.headers, now.headers):
            before = [self._noise.of_original(value) for value in values_of(was.headers, name)]
            after = [self._noise.of_ours(value) for value in values_of(now.headers, name)]
            if name in noise.OF_REQUESTS or (name in noise.ADDED_BY_QUICEDGE and not before):
                continue
            if before != after and not _same_values(name, before, after):
                yield _origin(Aspect.HEADER, _shown(before), _shown(after), name)
        if was.body != now.body:
            yield _origin(Aspect.BODY, _content(was.body), _content(now.body))

    def _group(self, seen: Seen) -> str:
        return self._groups.get(seen.origin, seen.origin)

    def _order(self, seen: Seen) -> tuple[str, str, str]:
        return self._group(seen), seen.method, seen.target

    def _asked(self, requests: list[Seen]) -> str:
        if not requests:
            return "no origin asked"
        return ", ".join(f"{one.method} {one.target} at {self._group(one)}" for one in requests)


def _anonymous(difference: Difference, address: str) -> Difference:
    """The same for all clients: each sample comes from an address of its own."""
    if not address:
        return difference
    was, now = (text.replace(address, "CLIENT") for text in (difference.original, difference.ours))
    return Difference(difference.effect, was, now)


def _client(aspect: Aspect, original: str, ours: str, name: str = "") -> Difference:
    return Difference(Effect(Side.CLIENT, aspect, name), original, ours)


def _origin(aspect: Aspect, original: str, ours: str, name: str = "") -> Difference:
    return Difference(Effect(Side.ORIGIN, aspect, name), original, ours)


def _is_of_one_kind(status: int, other: int) -> bool:
    """Whether two statuses that differ have fields of one kind."""
    both = (status, other)
    return 0 not in both and 101 not in both and (status >= 400) is (other >= 400)


def _of_bursts(original: Outcome, ours: Outcome) -> Iterator[Difference]:
    """Which of many requests at once are refused is a matter of milliseconds; how many is not."""
    was, now = original.statuses, ours.statuses
    allowed = sum(was.values()) * noise.SHARE_OF_BURST
    if any(abs(was.get(status, 0) - now.get(status, 0)) > allowed for status in {*was, *now}):
        # If each has answered all of them alike, that is a difference of any single request too.
        is_of_each = len(was) == len(now) == 1
        name = f"{next(iter(was))}->{next(iter(now))}" if is_of_each else "burst"
        yield _client(Aspect.STATUS, _counts(was), _counts(now), name)


def _counts(statuses: Mapping[int, int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


def _same_values(name: str, was: list[str], now: list[str]) -> bool:
    """Whether values that are not equal say the same."""
    return len(was) == len(now) and all(
        a == b or noise.are_close(name, b, a) or noise.are_generated(b, a)
        for a, b in zip(was, now, strict=True)
    )


def _is_of_a_file(original: Response, ours: Response) -> bool:
    """Both have made the validator of a file; each in its own way."""
    return noise.is_ours(ours) and bool(
        values_of(original.headers, "etag") and values_of(ours.headers, "etag")
    )


def _answer(response: Response, location: list[str]) -> str:
    if not response.status:
        return response.failure
    text = f"{response.status} to {location[0]}" if location else str(response.status)
    return f"{text} ({response.failure})" if response.failure else text


def _shown(values: list[str]) -> str:
    return _short(", ".join(values)) if values else "none"


def _content(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    return f"{len(body)} bytes: {_short(text)!r}" if body else "empty"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
