"""What every kind of sink promises, also of a receiver that echoes, hangs, floods or points elsewhere."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from activities.drivers.notices import posting, smtp
from activities.drivers.notices.composing import sink_of
from activities.drivers.notices.port import Sink, Undelivered
from activities.drivers.notices.secret import without
from activities.drivers.notices.telling import told
from orchestrator.noticing.rules import RulesFile
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput
from policies.model.notice import Delivery, NoticeLevel, Occasion
from policies.model.notice_rules import AnySink, HttpSink, NoticeRules
from tests.drivers.test_notice_mail import certified
from tests.drivers.test_notice_sinks import add, deliver, said
from tests.fakes.notice_sinks import (
    ASK_BY_THEMSELVES,
    IN_THE_ADDRESS,
    KINDS,
    MODELS,
    SECRET,
    Kind,
    answering,
    dripping,
    receiver,
    written,
)
from tests.fakes.silent import silent_name_servers

TOLD = sorted(MODELS.keys() - ASK_BY_THEMSELVES)
BY_HTTP = [kind for kind in TOLD if issubclass(MODELS[kind], HttpSink)]
NOTICE = said("k1", NoticeLevel.PAGE, headline="edge: Störung, „held“")
PIECE = 8
"""Characters in a row of a secret that nobody is to see."""


def of(kind: str) -> Kind:
    """Return how sinks of that kind are reached and heard."""
    if kind not in KINDS:
        pytest.fail(f"{kind} is a kind of sink without a receiver in tests/fakes/notice_sinks.py")
    return KINDS[kind]


def rules(kind: str, folder: Path, port: int, origin: str = "http", **more: str) -> RulesFile:
    """Return rules with one sink of that kind, called `it`, whose receiver is at that port."""
    (folder / "it.key").write_text(f"{SECRET}\n")
    (folder / "it.key").chmod(0o600)
    sink = {"name": "it", "kind": kind, **of(kind).settings(origin, port), **more}
    routes = [{"levels": ["page"], "sinks": ["it"]}]
    file = folder / "notices.yaml"
    file.write_text(json.dumps({"apiVersion": "penstock/v1", "sinks": [sink], "routes": routes}))
    return RulesFile(file)


def sink(kind: str, folder: Path, port: int, origin: str = "http", **more: str) -> Sink:
    found = rules(kind, folder, port, origin, **more).sink("it")
    assert found is not None
    return found


def leaked(text: str) -> list[str]:
    """Return the pieces of secrets that stand in the text."""
    forms = [form.decode() for form in written(SECRET)] + [IN_THE_ADDRESS]
    pieces = {form[at : at + PIECE] for form in forms for at in range(len(form) - PIECE + 1)}
    return sorted(piece for piece in pieces if piece in text)


@pytest.mark.parametrize("kind", sorted(ASK_BY_THEMSELVES))
def test_a_kind_that_nobody_tells_has_nothing_that_tells_it(kind: str, tmp_path: Path) -> None:
    settings: AnySink = TypeAdapter(AnySink).validate_python({"name": "it", "kind": kind})
    assert sink_of(settings, tmp_path, str) is None


# --- secrets -----------------------------------------------------------------------------

secrets = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60).map(str.strip)


@given(secrets, st.text(max_size=40), st.text(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_whatever_part_of_a_secret_is_said_nothing_of_use_is_left(
    secret: str, before: str, after: str, begin: int, end: int
) -> None:
    shown = without(f"{before}{secret[begin:end]}{after}", [secret])
    size = min(len(secret), PIECE)
    assert not [at for at in range(len(secret) - size + 1) if size and secret[at : at + size] in shown]
    assert without(before, []) == before


CUTS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "whole": lambda heard, _: heard,
    "from the secret on": lambda heard, form: heard[max(heard.find(form), 0) :],
    "cut off within the secret": lambda heard, form: heard[: heard.find(form) + len(form) // 2][-60:],
    "cut off where its end is not read": lambda heard, form: (
        b" " * ((1 << 16) - len(form) // 2) + heard[heard.find(form) :] * 9
    ),
}
"""How a receiver gives back what it heard, or knows by itself, by where a secret is in it."""


def echoing(secret: str, cut: str) -> Callable[[bytes], bytes]:
    """Return what gives back what was heard around the secret, or one that it knows otherwise."""

    def echo(heard: bytes) -> bytes:
        form = next((one for one in written(secret) if one in heard), secret.encode())
        return CUTS[cut](heard if form in heard else b"I know " + form, form)

    return echo


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("secret", [SECRET, IN_THE_ADDRESS])
@pytest.mark.parametrize("kind", TOLD)
def test_what_a_receiver_echoes_is_said_without_our_secrets(
    kind: str, secret: str, cut: str, tmp_path: Path
) -> None:
    if secret == IN_THE_ADDRESS and kind not in BY_HTTP:
        secret = SECRET  # its address has none
    with answering(of(kind), 403, echoing(secret, cut)) as (port, _), pytest.raises(Undelivered) as refused:
        asyncio.run(told(sink(kind, tmp_path, port), Delivery(sink="it", notice=NOTICE)))
    with answering(of(kind), 200, echoing(secret, cut)) as (port, _):
        taken = asyncio.run(told(sink(kind, tmp_path, port), Delivery(sink="it", notice=NOTICE)))
    assert "…" in str(refused.value), "what it said is told, but for the secret"
    assert leaked(f"{refused.value} {taken}") == []


@pytest.mark.parametrize("kind", TOLD)
def test_neither_ledger_nor_log_hold_a_secret_that_a_receiver_echoes(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with answering(of(kind), 403, echoing(SECRET, "from the secret on")) as (port, _):
        known = rules(kind, tmp_path, port)
        add(ledger, NOTICE, "it")
        asyncio.run(deliver(ledger, known))
    (row,) = ledger.notice_rows(["edge"], 9)
    assert "…" in row.error
    assert row.error in caplog.text
    assert leaked(f"{row.error} {ledger.sink_health()['it'].error} {caplog.text}") == []


@pytest.mark.parametrize("kind", TOLD)
def test_a_secret_that_others_may_read_is_shown_to_no_receiver(kind: str, tmp_path: Path) -> None:
    with answering(of(kind), 200) as (port, heard):
        careless = sink(kind, tmp_path, port)
        (tmp_path / "it.key").chmod(0o644)
        with pytest.raises(BadInput, match=r"it\.key") as refused:
            asyncio.run(told(careless, Delivery(sink="it", notice=NOTICE)))
    assert leaked(str(refused.value)) == []
    assert heard == []


@pytest.mark.parametrize("kind", TOLD)
def test_whether_a_sinks_files_are_as_they_must_be_is_said_before_anybody_is_told(
    kind: str, tmp_path: Path
) -> None:
    with answering(of(kind), 200) as (port, heard):
        found = rules(kind, tmp_path, port)
        assert found.unready() == {}
        (tmp_path / "it.key").chmod(0o644)
        assert "it.key" in str(found.unready()["it"])
        (tmp_path / "it.key").unlink()
        assert "it.key" in str(found.unready()["it"])
    assert heard == []


@pytest.mark.parametrize("kind", TOLD)
def test_settings_by_which_everybody_would_read_it_are_refused(kind: str) -> None:
    it = {"name": "it", "kind": kind, **of(kind).settings("http", 9)}
    accepted = {"apiVersion": "penstock/v1", "sinks": [it]}
    NoticeRules.model_validate(accepted)
    with pytest.raises(ValidationError, match="in the open") as refused:
        NoticeRules.model_validate(accepted | {"sinks": [{**it, **of(kind).in_the_open}]})
    (error,) = refused.value.errors(include_url=False, include_context=False, include_input=False)
    assert leaked(str(error)) == []


@pytest.mark.parametrize("kind", BY_HTTP)
def test_only_who_is_vouched_for_by_the_sinks_own_authorities_hears_anything(
    kind: str, tmp_path: Path
) -> None:
    context, authority = certified(tmp_path, "ours")
    _, other = certified(tmp_path, "others")
    with answering(of(kind), 200, tls=context) as (port, heard):
        for wrong in ({}, {"authorities": other.name}):
            with pytest.raises(Undelivered, match=r"(?i)certificate"):
                asyncio.run(
                    told(sink(kind, tmp_path, port, "https", **wrong), Delivery(sink="it", notice=NOTICE))
                )
        assert heard == []
        ours = sink(kind, tmp_path, port, "https", authorities=authority.name)
        asyncio.run(told(ours, Delivery(sink="it", notice=NOTICE)))
        assert len(heard) == 1


# --- occasions ---------------------------------------------------------------------------


@pytest.mark.parametrize("occasion", Occasion)
@pytest.mark.parametrize("kind", TOLD)
def test_a_sink_is_told_on_the_occasions_that_it_declares_and_knows_a_repeat(
    kind: str, occasion: Occasion, tmp_path: Path
) -> None:
    over = said("k2", NoticeLevel.INFO, state="resumed", resolves="k1")
    settles = occasion is Occasion.SETTLED
    delivery = Delivery(
        sink="it",
        notice=over if settles else NOTICE,
        occasion=occasion,
        resolved=(NOTICE,) if settles else (),
        waits=not settles,
    )
    with answering(of(kind), 200) as (port, heard):
        it = sink(kind, tmp_path, port)
        asyncio.run(told(it, Delivery(sink="it", notice=NOTICE, waits=True)))
        (first,) = heard
        for _ in range(2):
            asyncio.run(told(it, delivery))
        if occasion not in it.occasions:
            assert heard == [first], "it is not told what it says nothing of"
            return
        said_twice = [of(kind).known_by(one) for one in heard[1:]]
        assert len(said_twice) == 2
        assert said_twice[0] == said_twice[1], "a repeat is known"
        if not settles:
            assert said_twice[0] == of(kind).known_by(first), "it is the same notice"


@pytest.mark.parametrize("kind", TOLD)
def test_a_sink_is_told_what_happens_and_what_settles_it(kind: str, tmp_path: Path) -> None:
    assert {Occasion.SAID, Occasion.SETTLED} <= sink(kind, tmp_path, 9).occasions


# --- receivers that behave badly ---------------------------------------------------------


@pytest.mark.parametrize("kind", TOLD)
def test_a_receiver_that_never_ends_its_answer_is_given_up(kind: str, tmp_path: Path) -> None:
    async def tell() -> None:
        with receiver(dripping) as port:
            it = sink(kind, tmp_path, port)
            with pytest.raises(Undelivered, match="did not answer within 1 s"):
                await told(it, Delivery(sink="it", notice=NOTICE), timedelta(seconds=1))

    asyncio.run(tell())


@pytest.mark.parametrize("kind", TOLD)
def test_name_servers_that_do_not_answer_take_no_longer_than_the_deadline(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (posting, smtp):
        monkeypatch.setattr(module, "DEADLINE", timedelta(seconds=0.3))
    with silent_name_servers(numeric=False), pytest.raises(Undelivered) as undelivered:
        asyncio.run(told(sink(kind, tmp_path, 9), Delivery(sink="it", notice=NOTICE)))
    assert str(undelivered.value) in {
        "it did not answer within 0.3 s",
        "it cannot be reached: no name server answers for 127.0.0.1",
    }


@pytest.mark.parametrize("kind", BY_HTTP)
def test_an_answer_in_single_bytes_takes_no_time_of_the_workers_event_loop(kind: str, tmp_path: Path) -> None:
    """Each chunk of one byte was parsed on the event loop: 64 KiB of them kept every other step waiting."""

    def talk(connection: socket.socket) -> None:
        of(kind).hears(connection)
        connection.sendall(
            b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000
        )
        connection.sendall(b"0\r\n\r\n")

    async def tell() -> float:
        began = time.thread_time()
        await told(it, Delivery(sink="it", notice=NOTICE))
        return time.thread_time() - began

    with receiver(talk) as port:
        it = sink(kind, tmp_path, port)
        it.ready()  # reads the authorities, which are kept
        assert asyncio.run(tell()) < 0.1


@pytest.mark.parametrize("kind", BY_HTTP)
def test_a_receiver_that_took_a_notice_may_answer_more_than_is_read(kind: str, tmp_path: Path) -> None:
    with answering(of(kind), 202, lambda _: b"flood " * 100_000) as (port, _):
        answer = asyncio.run(told(sink(kind, tmp_path, port), Delivery(sink="it", notice=NOTICE)))
    assert answer.startswith("it answers 202: flood")


@pytest.mark.parametrize("kind", TOLD)
def test_an_answer_that_is_too_long_is_cut(kind: str, tmp_path: Path) -> None:
    with (
        answering(of(kind), 403, lambda _: b"flood " * 100_000) as (port, _),
        pytest.raises(Undelivered) as refused,
    ):
        asyncio.run(told(sink(kind, tmp_path, port), Delivery(sink="it", notice=NOTICE)))
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", BY_HTTP)
def test_a_receiver_that_points_elsewhere_is_not_followed_there(
    kind: str, status: int, tmp_path: Path
) -> None:
    with answering(of(kind), 200) as (other, elsewhere):

        def points(connection: socket.socket) -> None:
            of(kind).hears(connection)
            to = f"Location: http://127.0.0.1:{other}/{IN_THE_ADDRESS}"
            connection.sendall(f"HTTP/1.1 {status} There\r\n{to}\r\nConnection: close\r\n\r\n".encode())

        with receiver(points) as port, pytest.raises(Undelivered, match="points elsewhere") as refused:
            asyncio.run(told(sink(kind, tmp_path, port), Delivery(sink="it", notice=NOTICE)))
    assert elsewhere == []
    assert leaked(str(refused.value)) == []
