"""What a verification says in the end."""

from __future__ import annotations

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Note
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.differences import Comparison
from quicedge.migrate.verify.message import Outcome, Response, Sample
from quicedge.migrate.verify.noise import Noise
from quicedge.migrate.verify.sample_list import Made
from quicedge.migrate.verify.verdict import Verdict

SAMPLES = [Sample("GET", f"https://a.example.com/{number}") for number in range(8)]
STATUS = Effect(Side.CLIENT, Aspect.STATUS, "200->404")


def verdict(original: int, ours: int, *notes: Note, played: int = 8) -> Verdict:
    """Of samples that are all answered with these statuses."""
    outcomes = [(Outcome(Response(original)), Outcome(Response(ours))) for _ in range(played)]
    comparison = Comparison(Noise({}, {}), {})
    announcements = Announcements([], notes)
    return Verdict.of(Made(SAMPLES, []), outcomes, comparison, announcements, lambda *_: ())


def test_the_same_answers_are_a_proof():
    found = verdict(200, 200)
    assert found.is_proven
    assert found.render() == (
        "8 requests played to both: 8 without a difference, "
        "0 announced differences, 0 unannounced\n"
    )


def test_a_difference_is_shown_once_with_its_requests():
    found = verdict(200, 404)
    assert not found.is_proven
    assert found.render().startswith(
        "DIFFERENCES THAT THE REPORT DID NOT ANNOUNCE:\n"
        "  client: status: 200 -> 404\n"
        "      GET https://a.example.com/0\n"
    )
    assert "and 3 more requests" in found.render()


def test_an_announced_difference_is_no_obstacle():
    found = verdict(200, 404, Note("everything is gone", (STATUS,)))
    assert found.is_proven
    assert "announced: everything is gone" in found.render()


def test_plain_http_that_is_redirected_is_told_once_and_is_otherwise_the_same():
    samples = [Sample("GET", f"http://a.example.com/{number}") for number in range(3)]
    redirected = [
        Outcome(Response(308, [("location", f"https://a.example.com/{number}")]),
                over_tls=Outcome(Response(status)))
        for number, status in enumerate((200, 404, 301))
    ]  # fmt: skip
    outcomes = [
        (Outcome(Response(status)), ours)
        for status, ours in zip((200, 404, 301), redirected, strict=True)
    ]
    note = Note("over https", (Effect(Side.CLIENT, Aspect.SCHEME),))
    found = Verdict.of(
        Made(samples, []), outcomes, Comparison(Noise({}, {}), {}), Announcements([], [note]),
        lambda *_: (),
    )  # fmt: skip
    assert found.is_proven
    assert found.same == 3
    assert found.render().count("scheme: plain HTTP -> redirected to https") == 1


def test_an_original_that_answers_nothing_proves_nothing():
    found = verdict(0, 0)
    assert not found.is_proven
    assert "nothing is proven" in found.render()


def test_what_was_not_played_is_told():
    assert "note: 3 of 8 requests were not played" in verdict(200, 200, played=5).render()
