"""What is ordered, when and where, on a virtual clock."""

from __future__ import annotations

import itertools

import pytest

from quicedge.acme.failure import Cause, Failure
from quicedge.acme.lifetime import Lifetime, Window
from quicedge.acme.schedule import HostRecord, Order, Schedule
from quicedge.config.acmelimits import (
    BACKOFF_JITTER,
    BACKOFF_MAX,
    BACKOFF_MIN,
    ISSUER_DOWN_MAX,
    ISSUER_REFUSES,
    ORDERS_BURST,
    RENEW_AGE_LEAST,
    RENEW_AGE_MIN,
    RENEW_JITTER,
    RENEWAL_INFO_INTERVAL,
    RETRY_AFTER_MAX,
)

DAY = 86400.0
NOW = 1_800_000_000.0
MAIN, SPARE = "https://main.example/directory", "https://spare.example/directory"
REJECTED = Failure(cause=Cause.REJECTED, message="dns: no such name")
DOWN = Failure(cause=Cause.UNAVAILABLE, message="connection refused")


def schedule(*hosts: str, issuers: tuple[str, ...] = (MAIN,), chance: float = 0.0) -> Schedule:
    made = Schedule(issuers, lambda: chance, NOW)
    for host in hosts:
        made.manage(host, HostRecord(), None)
    return made


def one(made: Schedule, now: float) -> Order | None:
    """The next order, alone."""
    return next(iter(list(made.orders(now, 1))), None)


def run(made: Schedule, seconds: float, answer, start: float = NOW) -> list[tuple[float, Order]]:
    """Place every order as it falls due, `answer` it, and list them with their times."""
    placed: list[tuple[float, Order]] = []
    now = start
    while now <= start + seconds:
        for order in list(made.orders(now, 100)):
            placed.append((now - start, order))
            answer(made, order, now)
        following = made.next_at(now)
        if following is None:
            break
        assert len(placed) < 10_000, "orders in a loop"
        now = max(following, now + 0.001)
    return placed


def fail_with(failure: Failure):
    return lambda made, order, now: made.failed(order.host, order.issuer, failure, now)


def succeed(days: float):
    def answer(made: Schedule, order: Order, now: float) -> None:
        made.succeeded(order.host, order.issuer, Lifetime(now, now + days * DAY), now)

    return answer


# --- renewal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [6.67, 45, 90, 365])
@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_certificate_is_renewed_around_two_thirds_of_its_life(days: float, chance: float) -> None:
    made = schedule("a.example.com", chance=chance)
    placed = run(made, days * DAY, succeed(days))
    assert [at for at, _ in placed[:1]] == [0.0]
    at, order = placed[1]
    assert order == Order("a.example.com", MAIN, is_renewal=True)
    assert days * DAY * (2 / 3 - RENEW_JITTER) <= at <= days * DAY * 2 / 3 + 1


def test_certificates_ordered_together_are_not_renewed_together() -> None:
    chances = itertools.cycle([0.0, 0.25, 0.5, 0.75])
    made = Schedule([MAIN], lambda: next(chances), NOW)
    for host in "abcd":
        made.manage(f"{host}.example.com", HostRecord(), None)
    renewals = [at for at, _ in run(made, 70 * DAY, succeed(90))[4:8]]
    assert min(b - a for a, b in itertools.pairwise(sorted(renewals))) > 0.5 * DAY


def test_a_certificate_that_is_stored_is_not_ordered_again_after_a_restart() -> None:
    made = schedule()
    made.manage("a.example.com", HostRecord(issuer=MAIN), Lifetime(NOW - DAY, NOW + 89 * DAY))
    assert one(made, NOW) is None
    assert made.next_at(NOW) == pytest.approx(NOW - DAY + 60 * DAY)


def test_an_expired_certificate_is_renewed_at_once_after_those_without_one() -> None:
    made = schedule("new.example.com")
    made.manage("old.example.com", HostRecord(issuer=MAIN), Lifetime(NOW - 90 * DAY, NOW - 1))
    assert [order.host for order in made.orders(NOW, 5)] == ["new.example.com", "old.example.com"]


# --- failures ---------------------------------------------------------------------------------


def test_failures_are_tried_again_ever_more_slowly_and_never_in_a_loop() -> None:
    made = schedule("a.example.com", chance=0.5)
    times = [at for at, _ in run(made, 2 * DAY, fail_with(REJECTED))]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    most = 1 + BACKOFF_JITTER
    assert BACKOFF_MIN <= gaps[0] <= BACKOFF_MIN * most
    assert all(b >= a * 0.9 for a, b in itertools.pairwise(gaps))
    assert max(gaps) <= BACKOFF_MAX * most
    assert len(times) < 20


def test_failed_validations_stay_within_five_per_hour() -> None:
    times = [at for at, _ in run(schedule("a.example.com"), DAY, fail_with(REJECTED))]
    assert len([at for at in times if at < 3600]) <= 5


def test_a_certificate_of_six_days_has_many_attempts_before_it_expires() -> None:
    made = schedule("a.example.com")
    made.manage("a.example.com", HostRecord(issuer=MAIN), Lifetime(NOW, NOW + 6 * DAY))
    assert len(run(made, 6 * DAY, fail_with(REJECTED))) >= 12


def test_a_restart_does_not_shorten_a_delay() -> None:
    made = schedule("a.example.com")
    run(made, 3600, fail_with(REJECTED))
    record = made.record("a.example.com")
    again = schedule()
    again.manage("a.example.com", record, None)
    assert one(again, NOW + 3600) is None
    assert again.next_at(NOW + 3600) == made.next_at(NOW + 3600)


def test_since_when_and_why_is_kept_until_an_order_succeeds() -> None:
    made = schedule("a.example.com")
    run(made, 600, fail_with(REJECTED))
    record = made.record("a.example.com")
    assert (record.failing_since, record.error) == (NOW, "dns: no such name")
    made.hurry("a.example.com", NOW + 700)
    assert made.record("a.example.com").failing_since == NOW
    run(made, 1, succeed(90), start=NOW + 700)
    assert made.record("a.example.com").failing_since is None
    assert made.record("a.example.com").failures == 0


def test_an_operator_need_not_wait_for_the_delay() -> None:
    made = schedule("a.example.com")
    run(made, 3000, fail_with(REJECTED))
    assert one(made, NOW + 3001) is None
    made.hurry("a.example.com", NOW + 3001)
    assert one(made, NOW + 3001) is not None


def test_a_name_is_ordered_once_at_a_time() -> None:
    made = schedule("a.example.com")
    assert one(made, NOW) is not None
    assert one(made, NOW) is None
    assert made.next_at(NOW) is None
    made.dropped("a.example.com")
    assert one(made, NOW) is not None


# --- what issuers ask for ---------------------------------------------------------------------


def test_a_rate_limit_is_respected_for_the_name_and_leaves_others_alone() -> None:
    made = schedule("a.example.com", "b.example.com")
    limited = Failure(cause=Cause.RATE_LIMITED, message="too many", retry_after=7200)
    first = one(made, NOW)
    assert first is not None
    made.failed(first.host, MAIN, limited, NOW)
    second = one(made, NOW)
    assert second is not None
    assert second.host != first.host
    made.succeeded(second.host, MAIN, Lifetime(NOW, NOW + 90 * DAY), NOW)
    assert one(made, NOW + 7199) is None
    assert one(made, NOW + 7200) == first


def test_an_operator_does_not_override_a_rate_limit() -> None:
    made = schedule("a.example.com")
    run(made, 0, fail_with(Failure(cause=Cause.RATE_LIMITED, message="", retry_after=7200)))
    made.hurry("a.example.com", NOW + 1)
    assert one(made, NOW + 1) is None


def test_an_absurd_retry_after_is_bounded() -> None:
    made = schedule("a.example.com")
    run(made, 0, fail_with(Failure(cause=Cause.RATE_LIMITED, message="", retry_after=1e12)))
    assert made.next_at(NOW) == NOW + RETRY_AFTER_MAX


def test_an_issuer_that_is_down_is_asked_by_one_name_at_a_time_and_ever_more_rarely() -> None:
    made = schedule(*(f"{n}.example.com" for n in range(50)))
    now, asked = NOW, []
    while now < NOW + DAY:
        order = one(made, now)
        if order is not None:
            asked.append(now)
            made.failed(order.host, MAIN, DOWN, now)
        following = made.next_at(now)
        assert following is not None
        now = max(following, now + 0.001)
    assert len(asked) < 40
    assert asked[-1] - asked[-2] == pytest.approx(ISSUER_DOWN_MAX)


def test_a_renewal_by_hand_ends_our_delay_after_an_outage_and_not_the_issuers() -> None:
    for asked, wait in ((None, 0), (900, 900)):
        made = schedule("a.example.com")
        outage = Failure(cause=Cause.UNAVAILABLE, message="503", retry_after=asked)
        assert one(made, NOW) is not None
        made.failed("a.example.com", MAIN, outage, NOW)
        made.hurry("a.example.com", NOW)
        if wait:
            assert one(made, NOW + wait - 1) is None
        assert one(made, NOW + wait) is not None


def test_an_outage_costs_a_name_no_delay_of_its_own() -> None:
    made = schedule("a.example.com")
    run(made, DAY, fail_with(DOWN))
    assert made.record("a.example.com").failures == 0
    assert made.record("a.example.com").failing_since == NOW


def test_the_retry_after_of_an_outage_holds_for_all_names() -> None:
    made = schedule("a.example.com", "b.example.com")
    order = one(made, NOW)
    assert order is not None
    busy = Failure(cause=Cause.UNAVAILABLE, message="503", retry_after=900)
    made.failed(order.host, MAIN, busy, NOW)
    assert one(made, NOW + 899) is None
    assert one(made, NOW + 900) is not None


def test_a_refused_account_is_left_alone_for_long() -> None:
    made = schedule("a.example.com")
    refused = Failure(cause=Cause.REFUSED, message="externalAccountRequired")
    assert len(run(made, 4 * ISSUER_REFUSES, fail_with(refused))) <= 5
    assert next(iter(made.issuers(NOW + ISSUER_REFUSES * 4))).error == "externalAccountRequired"


def test_many_names_at_first_start_are_spread_over_time() -> None:
    made = schedule(*(f"{n}.example.com" for n in range(100)))
    placed = run(made, 3600, succeed(90))
    assert len(placed) == 100
    assert len([at for at, _ in placed if at < 1]) == ORDERS_BURST
    assert placed[-1][0] >= 200


# --- several issuers --------------------------------------------------------------------------


def test_the_next_issuer_is_tried_at_once_and_the_first_again_for_the_renewal() -> None:
    made = schedule("a.example.com", issuers=(MAIN, SPARE))

    def answer(made: Schedule, order: Order, now: float) -> None:
        if order.issuer == MAIN:
            made.failed(order.host, MAIN, REJECTED, now)
        else:
            made.succeeded(order.host, SPARE, Lifetime(now, now + 90 * DAY), now)

    placed = run(made, 70 * DAY, answer)
    assert [order.issuer for _, order in placed] == [MAIN, SPARE, MAIN, SPARE]
    assert placed[1][0] < 1


def test_an_issuer_that_is_down_is_replaced_by_the_next() -> None:
    made = schedule(*(f"{n}.example.com" for n in range(10)), issuers=(MAIN, SPARE))

    def answer(made: Schedule, order: Order, now: float) -> None:
        if order.issuer == MAIN:
            made.failed(order.host, MAIN, DOWN, now)
        else:
            made.succeeded(order.host, SPARE, Lifetime(now, now + 90 * DAY), now)

    issuers = [order.issuer for at, order in run(made, 300, answer)]
    assert issuers.count(SPARE) == 10
    made_by = {made.record(host).issuer for host in made.hosts()}
    assert made_by == {SPARE}


def test_names_wait_only_when_every_issuer_has_failed_them() -> None:
    made = schedule("a.example.com", issuers=(MAIN, SPARE))
    placed = run(made, BACKOFF_MIN * 1.05, fail_with(REJECTED))
    assert [order.issuer for _, order in placed] == [MAIN, SPARE, MAIN, SPARE]
    assert placed[2][0] >= BACKOFF_MIN


def test_a_rejected_name_does_not_wait_for_a_spare_issuer_that_is_down() -> None:
    made = schedule("a.example.com", issuers=(MAIN, SPARE))

    def answer(made: Schedule, order: Order, now: float) -> None:
        made.failed(order.host, order.issuer, DOWN if order.issuer == SPARE else REJECTED, now)

    placed = run(made, BACKOFF_MIN + 60, answer)
    assert [order.issuer for _, order in placed].count(MAIN) == 2


# --- renewal information (RFC 9773) -------------------------------------------------------------


def with_certificate() -> Schedule:
    made = schedule(chance=0.5)
    made.manage("a.example.com", HostRecord(issuer=MAIN), Lifetime(NOW, NOW + 90 * DAY))
    return made


def test_the_issuer_is_asked_soon_and_then_as_often_as_it_says() -> None:
    made = with_certificate()
    assert made.questions(NOW) == {MAIN: ["a.example.com"]}
    made.suggested("a.example.com", Window(NOW + 50 * DAY, NOW + 52 * DAY), 21600, NOW)
    assert made.questions(NOW + 21599) == {}
    assert made.questions(NOW + 21600) == {MAIN: ["a.example.com"]}
    assert made.due_at("a.example.com") == NOW + 51 * DAY


def test_the_moment_in_the_window_is_chosen_once() -> None:
    chances = iter([0.1, 0.2, 0.9])
    made = Schedule([MAIN], lambda: next(chances), NOW)
    made.manage("a.example.com", HostRecord(issuer=MAIN), Lifetime(NOW, NOW + 90 * DAY))
    window = Window(NOW + 50 * DAY, NOW + 60 * DAY)
    made.suggested("a.example.com", window, None, NOW)
    chosen = made.due_at("a.example.com")
    made.suggested("a.example.com", window, None, NOW + DAY)
    assert made.due_at("a.example.com") == chosen


def test_a_window_in_the_past_renews_at_once_because_the_certificate_is_to_be_revoked() -> None:
    made = with_certificate()
    made.suggested("a.example.com", Window(NOW - 2 * DAY, NOW - DAY), None, NOW)
    assert one(made, NOW) is not None


def test_a_certificate_that_was_just_obtained_is_not_renewed_whatever_is_suggested() -> None:
    made = schedule("a.example.com")
    run(made, 0, succeed(90))
    made.suggested("a.example.com", Window(NOW - 2 * DAY, NOW - DAY), None, NOW)
    assert one(made, NOW + RENEW_AGE_MIN - 1) is None
    assert one(made, NOW + RENEW_AGE_MIN) is not None


def test_a_clock_that_is_wrong_does_not_make_orders_without_end() -> None:
    made = schedule("a.example.com")

    def expired(made: Schedule, order: Order, now: float) -> None:
        made.succeeded(order.host, MAIN, Lifetime(now - 400 * DAY, now - 310 * DAY), now)

    assert len(run(made, DAY, expired)) <= 25


def test_an_issuer_of_certificates_of_seconds_is_not_asked_without_end() -> None:
    made = schedule("a.example.com")
    placed = run(made, 600, succeed(4 / DAY))
    assert len(placed) == pytest.approx(600 / RENEW_AGE_LEAST, abs=2)


@pytest.mark.parametrize("minutes", [5, 60])
def test_a_certificate_of_minutes_is_renewed_in_time(minutes: int) -> None:
    made = schedule("a.example.com")
    placed = run(made, 3600, succeed(minutes / 1440))
    assert placed[1][0] == pytest.approx(minutes * 40, rel=0.01)


@pytest.mark.parametrize(
    "window", [Window(NOW + 200 * DAY, NOW + 201 * DAY), Window(NOW + 5, NOW + 5)]
)
def test_a_window_that_makes_no_sense_does_not_delay_the_renewal(window: Window) -> None:
    made = with_certificate()
    made.suggested("a.example.com", window, None, NOW)
    assert made.due_at("a.example.com") <= NOW + 60 * DAY


def test_without_an_answer_the_certificate_is_renewed_as_planned() -> None:
    made = with_certificate()
    made.unanswered("a.example.com", NOW)
    assert made.questions(NOW + RENEWAL_INFO_INTERVAL - 1) == {}
    assert NOW + 55 * DAY < made.due_at("a.example.com") <= NOW + 60 * DAY


@pytest.mark.parametrize(("said", "kept"), [(0, 60), (1e9, 86400)])
def test_how_often_the_issuer_is_asked_is_bounded(said: float, kept: float) -> None:
    made = with_certificate()
    made.suggested("a.example.com", Window(NOW + 50 * DAY, NOW + 52 * DAY), said, NOW)
    assert made.questions(NOW + kept - 1) == {}
    assert made.questions(NOW + kept) != {}


def test_no_question_is_due_about_what_is_being_renewed() -> None:
    made = with_certificate()
    made.hurry("a.example.com", NOW)
    assert made.questions(NOW) == {}
