"""Chat: orders are taken from linked people in their fleets' rooms, once each, and refused by name."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from orchestrator import refusals
from orchestrator.api.limits import PER_MINUTE, Kind
from orchestrator.service import caller_refusals
from orchestrator.service.chat import key_of
from orchestrator.store.ledger import Ledger
from orchestrator.words.standing import needs_operator
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.chat import ChatMessage
from policies.model.command import CommandKind, CommandReceipt, StoredCommand
from policies.model.people import EVERY_FLEET, Role
from policies.model.value import digest_of
from policies.model.way_back import RollbackPreview
from tests.service.chat_rooms import ROOM, WORKSPACE, Process, code_in, link, token, with_chat
from tests.service.test_every_state import CONFIRM, STATES, written
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["night"]


@pytest.fixture
def ledger(night: Night) -> Ledger:
    found = Ledger.open(night.settings.ledger_url)
    found.open_change(
        ChangeOpening(
            key="the change under way",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="eve",
            reason="new features",
            release="1.4.0",
        )
    )
    return found


@pytest.fixture
def room(night: Night, ledger: Ledger) -> Process:
    with_chat(night.folder)
    for person in ("ana", "ben", "cleo", "dan"):
        link(ledger, person)
    return Process(night.api, token(ledger))


def refused_in(night: Night) -> list[str]:
    """Return the bodies of the record's entries about refused messages."""
    actions = "('refused', 'message refused')"
    with closing(sqlite3.connect(night.database)) as database:
        found = database.execute(f"SELECT body FROM audit WHERE via = 'chat' AND action IN {actions}")
        return [body for (body,) in found]


async def test_a_hold_is_given_at_once_in_the_persons_own_name(night: Night, room: Process) -> None:
    answer = await room.say("ana", "hold edge logins hurt")
    assert answer.begun == "hold", answer.text
    assert len(await night.heard()) == 1
    assert {one.partition("/")[0] for one in await night.heard()} == {"ana"}


async def test_the_same_message_is_carried_out_once_and_gets_the_same_answer(
    night: Night, room: Process
) -> None:
    same: dict[str, object] = {"message": "$one", "at": datetime.now(UTC).isoformat()}
    first = await room.say("ana", "hold edge", **same)
    again = await room.say("ana", "hold edge", **same)
    assert again.lines == first.lines
    assert (first.repeated, again.repeated) == (False, True)
    assert len(await night.heard()) == 1
    other = await room.say("ana", "hold edge for another reason", **same)
    assert other.refused == "OtherContent"


async def test_a_token_named_chat_takes_no_key_of_a_message(room: Process, ledger: Ledger) -> None:
    message = ChatMessage.model_construct(
        workspace=WORKSPACE, user="", channel=ROOM, message="$one", at=datetime.now(UTC)
    )
    assert ledger.begin_request("chat", key_of(message), b"another request") is None
    answer = await room.say("ana", "hold edge logins hurt", message="$one")
    assert answer.begun == "hold", answer.text


async def test_a_rollback_takes_a_code_that_only_whoever_asked_can_use_and_once(
    night: Night, room: Process
) -> None:
    asked = await room.say("ana", "rollback edge it hurts")
    assert "2 minutes, only you" in asked.text, asked.text
    assert not await night.heard()
    code = code_in(asked)
    other = await room.say("ben", f"confirm {code}")
    assert other.lines[0] == ("ben: only ana can confirm this. To start your own: !penstock rollback edge")
    assert not await night.heard()
    done = await room.say("ana", f"confirm {code.upper()}")
    assert done.begun == "rollback", done.text
    assert "by ana" in done.text
    again = await room.say("ana", f"confirm {code}")
    assert again.refused == "Refused"
    assert len(await night.heard()) == 1


async def test_after_few_wrong_codes_the_right_one_is_worth_nothing(night: Night, room: Process) -> None:
    code = code_in(await room.say("ana", "rollback edge"))
    for _ in range(5):
        assert (await room.say("ana", "confirm 0000")).refused == "Refused"
    assert (await room.say("ana", f"confirm {code}")).refused == "Refused"
    assert not await night.heard()


async def test_a_code_is_good_for_two_minutes(night: Night, room: Process) -> None:
    code = code_in(await room.say("ana", "rollback edge"))
    with closing(sqlite3.connect(night.database)) as database:
        late = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
        database.execute("UPDATE chat_codes SET expires = ?", (late,))
        database.commit()
    assert (await room.say("ana", f"confirm {code}")).refused == "Refused"
    assert not await night.heard()


async def test_a_code_of_another_state_of_the_change_confirms_nothing(
    night: Night, room: Process, ledger: Ledger
) -> None:
    code = code_in(await room.say("ana", "rollback edge"))
    with closing(sqlite3.connect(night.database)) as database:
        database.execute("UPDATE changes SET outcome = 'promoted', ended = began, sentence = 'good'")
        database.commit()
    answer = await room.say("ana", f"confirm {code}")
    assert answer.refused == "Refused", answer.text
    assert "has moved on" in answer.text
    assert "the ledger has no known-good of edge" in answer.text
    assert not await night.heard()


@pytest.mark.parametrize(
    ("person", "said", "more", "why"),
    [
        ("mallory", "hold edge", {}, "not linked to a person"),
        ("dan", "hold edge", {}, "may not hold or abort"),
        ("dan", "rollback edge", {}, "may not roll back"),
        ("ana", "hold edge", {"direct": True}, "a direct message only asks"),
        ("ana", "hold edge", {"channel": "!other:chat.example.org"}, "not spoken of in this room"),
        ("ana", "hold core", {}, "not spoken of in this room"),
        ("ana", "hold edge", {"at": "2026-01-01T00:00:00Z"}, "more than five minutes ago"),
        ("ana", "hold edge", {"at": "2126-01-01T00:00:00Z"}, "more than five minutes ago"),
        ("cleo", "approve edge", {}, "takes no approvals in chats"),
        ("ana", "rollback edge --to 1.0", {}, "known-good alone"),
        ("ana", "holt edge", {}, "did you mean !penstock hold?"),
        ("ana", "hold egde", {}, "did you mean !penstock hold edge?"),
    ],
)
async def test_what_may_not_be_is_refused_by_name_and_written_down(
    night: Night, room: Process, ledger: Ledger, person: str, said: str, more: dict[str, object], why: str
) -> None:
    answer = await room.say(person, said, **more)
    assert answer.refused, answer.text
    assert answer.text.startswith(f"{person}: ")
    assert why in answer.text
    assert not await night.heard()
    await night.installation.service.write_refusals()
    assert any(why in body for body in refused_in(night))


async def test_whoever_lost_their_role_or_their_link_orders_nothing_from_then_on(
    night: Night, room: Process, ledger: Ledger
) -> None:
    code = code_in(await room.say("ana", "rollback edge"))
    file = night.folder / "people.yaml"
    file.write_text(file.read_text().replace("'*': [operator]", "'*': [viewer]"))
    assert (await room.say("ana", f"confirm {code}")).refused == "NotAllowed"
    with_chat(night.folder)
    asked = {"workspace": WORKSPACE, "user": f"@ana:{WORKSPACE}", "reason": "stolen"}
    key = {"Idempotency-Key": uuid4().hex}
    assert (await night.api.post("/chat/unlink", json=asked, headers=key)).json()["new"]
    answer = await room.say("ana", "hold edge")
    assert "not linked" in answer.text
    assert not await night.heard()


async def test_only_a_token_of_the_role_chat_hands_on_and_it_may_do_nothing_else(
    night: Night, room: Process, ledger: Ledger
) -> None:
    body = {
        "workspace": WORKSPACE,
        "user": f"@ana:{WORKSPACE}",
        "channel": ROOM,
        "message": "$m",
        "text": "!penstock hold edge",
        "at": datetime.now(UTC).isoformat(),
    }
    root = await night.api.post("/chat/messages", json=body)
    assert root.status_code == 403, root.text
    shown = {"Authorization": f"Bearer {token(ledger)}", "Idempotency-Key": "k"}
    for path in ("/fleets/edge", "/changes/edge-1", "/audit", "/releases"):
        answer = await night.api.get(path, headers=shown)
        assert answer.status_code >= 400 or answer.json() == {"releases": []}, answer.text
    order = {"kind": "hold", "reason": "because"}
    assert (await night.api.post("/fleets/edge/commands", json=order, headers=shown)).status_code == 404
    assert not await night.heard()


async def test_status_and_why_tell_what_the_page_tells(room: Process) -> None:
    said = await room.say("dan", "status")
    assert said.lines[1].startswith("edge-1: ")
    assert [line.partition(":")[0] for line in said.lines[2:]] == ["Users", "Why", "Next", "You can"]
    assert "hold" not in said.lines[-1]  # dan only looks
    assert (await room.say("dan", "explain edge")).lines[0].startswith("edge-1: ")
    assert (await room.say("dan", "history edge")).lines[0].startswith("edge-1: ")


async def test_a_rollback_that_has_changed_since_its_code_is_shown_anew_with_a_new_code(
    night: Night, room: Process, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10: a code confirms the releases that were shown, and none that an operator never read."""
    service = night.installation.service
    told, given = ["gw-1 serves 1.1.6"], list[str | None]()

    async def preview(*_: object) -> RollbackPreview:
        return RollbackPreview(does=True, sentence=told[-1], digest=digest_of(told[-1].encode()))

    async def roll_back(*_: object, shown: str | None, **__: object) -> CommandReceipt:
        given.append(shown)
        return CommandReceipt(id="back", accepted=True, sentence="Rolling back.")

    monkeypatch.setattr(service, "rollback_preview", preview)
    monkeypatch.setattr(service, "roll_back", roll_back)
    code = code_in(await room.say("ana", "rollback edge it hurts"))
    told.append("gw-1 serves 1.0.0")
    anew = await room.say("ana", f"confirm {code}")
    assert "Nothing is done yet: edge has moved on since" in anew.lines[0]
    assert "gw-1 serves 1.0.0" in anew.text
    assert given == []
    done = await room.say("ana", f"confirm {code_in(anew)}")
    assert done.begun == "rollback", done.text
    assert given == [digest_of(told[-1].encode())]


@pytest.mark.parametrize(("stored", "lead"), [(False, "Started"), (True, "Ordered")])
async def test_a_rollback_that_is_only_stored_is_not_called_started_in_a_chat(
    night: Night, room: Process, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stored: bool, lead: str
) -> None:
    """Nothing had begun: the receipt names the change under way, for which the order is stored."""
    service = night.installation.service

    async def roll_back(*_: object, **__: object) -> CommandReceipt:
        return CommandReceipt(id="back", accepted=True, sentence="Done.", change="edge-1", stored=stored)

    monkeypatch.setattr(service, "roll_back", roll_back)
    code = code_in(await room.say("ana", "rollback edge it hurts"))
    done = await room.say("ana", f"confirm {code}")
    assert done.lines[0].startswith(f"{lead} "), done.text


async def test_an_approval_is_for_the_rollback_that_the_chat_has_shown(
    night: Night, room: Process, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10: `approve edge` approved whatever waited by then."""
    with_chat(night.folder, "  approvals: true\n")
    given = list[tuple[object, object]]()

    async def command(*_: object, **named: object) -> CommandReceipt:
        given.append((named["approves"], named["change"]))
        return CommandReceipt(id="yes", accepted=True, sentence="Approved.")

    monkeypatch.setattr(night.installation.service, "command", command)
    written(ledger, STATES["waiting for a second person"])
    newest = ledger.last_change("edge")
    assert newest is not None
    asked = await room.say("cleo", "approve edge it is right")
    assert newest.name in asked.text
    assert given == []
    done = await room.say("cleo", f"confirm {code_in(asked)}")
    assert done.begun == "approve", done.text
    assert given == [(CONFIRM.change, newest.name)]


async def test_a_card_is_posted_once_and_edited_from_then_on(
    night: Night, room: Process, ledger: Ledger
) -> None:
    shown = {"Authorization": f"Bearer {token(ledger)}"}

    async def wanted() -> list[dict[str, object]]:
        answer = await night.api.get("/chat/cards", params={"workspace": WORKSPACE}, headers=shown)
        found: list[dict[str, object]] = answer.json()["cards"]
        return found

    (card,) = await wanted()
    assert (card["message"], card["change"]) == (None, "edge-1")
    (again,) = await wanted()
    assert again["transaction"] == card["transaction"]
    told = {"workspace": WORKSPACE, "channel": ROOM, "change": "edge-1", "message": "$card"}
    noted = await night.api.post("/chat/cards", json=told | {"digest": card["digest"]}, headers=shown)
    assert noted.status_code == 200, noted.text
    assert await wanted() == []
    with closing(sqlite3.connect(night.database)) as database:
        database.execute("UPDATE changes SET outcome = 'promoted', ended = began, sentence = 'it is good'")
        database.commit()
    (edited,) = await wanted()
    assert edited["message"] == "$card"


async def test_a_card_shows_a_stored_command_and_offers_nothing_that_it_may_have_answered(
    night: Night, room: Process, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` named the stored hold; the card named it nowhere, and offered to hold."""
    hold = StoredCommand(kind=CommandKind.HOLD, person="ana", reason="users call", at=datetime.now(UTC))

    async def stored(_: str) -> tuple[StoredCommand, ...]:
        return (hold,)

    monkeypatch.setattr(night.installation.service, "stored", stored)
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    answer = await night.api.get("/chat/cards", params={"workspace": WORKSPACE}, headers=shown)
    (card,) = answer.json()["cards"]
    (line,) = [one for one in card["lines"] if one.startswith("Stored: ")]
    assert line.startswith("Stored: not yet carried out: hold by ana at ")
    assert line.endswith(": users call")
    assert "hold" not in {one["verb"] for one in card["offers"]}


async def test_an_edit_that_shows_again_what_a_card_showed_before_is_an_edit_of_its_own(
    night: Night, room: Process, ledger: Ledger
) -> None:
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    told = {"workspace": WORKSPACE, "channel": ROOM, "change": "edge-1", "message": "$card"}
    names = list[str]()
    for _ in range(3):  # the room shows something else each time, and the same is wanted there
        noted = await night.api.post("/chat/cards", json=told | {"digest": "on-0"}, headers=shown)
        assert noted.status_code == 200, noted.text
        asked = [
            (await night.api.get("/chat/cards", params={"workspace": WORKSPACE}, headers=shown)).json()[
                "cards"
            ]
            for _ in range(2)
        ]
        assert asked[0] == asked[1]  # a repeat after a kill is the same edit
        names.append(asked[0][0]["edit"])
    assert len({*names}) == len(names)


async def test_a_card_is_of_the_fleet_of_its_change_and_of_no_fleet_whose_name_begins_alike(
    night: Night, room: Process, ledger: Ledger
) -> None:
    file = night.file.with_name("edge-eu.yaml")
    file.write_text(night.file.read_text().replace("name: edge\n", "name: edge-eu\n", 1))
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    opening = ChangeOpening(
        key="the change in Europe",
        fleet="edge-eu",
        kind=ChangeKind.UPGRADE,
        requested_by="eve",
        reason="new features",
        release="1.4.0",
    )
    assert ledger.open_change(opening) == "edge-eu-1"
    told = {"workspace": WORKSPACE, "channel": ROOM, "change": "edge-eu-1", "message": "$card"}
    noted = await night.api.post("/chat/cards", json=told | {"digest": "on-0"}, headers=shown)
    assert noted.status_code == 200, noted.text
    answer = await night.api.get("/chat/cards", params={"workspace": WORKSPACE}, headers=shown)
    assert [card["change"] for card in answer.json()["cards"]] == ["edge-1", "edge-eu-1"]


async def test_many_accounts_that_are_not_linked_are_a_bounded_number_of_entries(
    night: Night, room: Process
) -> None:
    """S3, the chat: each account was an entry an hour of a record that is kept for ever."""
    strangers = 3 * refusals.MOST_ENTRIES
    for number in range(strangers):
        assert (await room.say(f"stranger{number}", "status edge")).refused == "NotAllowed"
        await night.installation.service.write_refusals()
    assert len(refused_in(night)) == refusals.MOST_ENTRIES


async def test_a_linked_account_that_is_refused_without_end_is_a_bounded_number_of_entries(
    night: Night, room: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3, the chat: each refused message of a linked account was an entry."""
    monkeypatch.setitem(PER_MINUTE, Kind.SAFE, 600)  # what a minute allows comes again every minute
    for number in range(2 * caller_refusals.MOST_ENTRIES):
        assert (await room.say("ana", f"hold edge {number}", direct=True)).refused
    assert 1 <= len(refused_in(night)) <= caller_refusals.MOST_ENTRIES


@pytest.mark.usefixtures("no_refill")
async def test_strangers_who_talk_too_much_keep_nobody_from_holding(night: Night, room: Process) -> None:
    refused = [await room.say("stranger", "status edge") for _ in range(25)]
    assert any(one.refused == "TooMany" for one in refused)
    assert (await room.say("ana", "hold edge")).begun == "hold"


async def strangers_talk(room: Process) -> None:
    """Have fifteen accounts that are not linked ask as often as each of them may."""
    for number in range(15):
        for _ in range(PER_MINUTE[Kind.CHANGE]):
            await room.say(f"stranger{number}", "status edge")


@pytest.mark.sweep
@pytest.mark.usefixtures("no_refill")
@pytest.mark.parametrize("text", ["hold\nedge", "roll-back edge", "roll_back edge", "yes {code}"])
async def test_strangers_who_talk_too_much_keep_no_order_out_however_it_is_spelled(
    night: Night, room: Process, text: str
) -> None:
    code = code_in(await room.say("ana", "rollback edge it hurts"))
    await strangers_talk(room)
    answer = await room.say("ana", text.format(code=code))
    assert answer.refused != "TooMany", answer.text


async def test_accounts_that_are_not_linked_leave_no_row_of_a_request(
    night: Night, room: Process, ledger: Ledger
) -> None:
    def rows() -> int:
        with closing(sqlite3.connect(night.database)) as database:
            return int(database.execute("SELECT count(*) FROM requests").fetchone()[0])

    for number in range(3):
        for text in ("hold edge", "status edge", "link", "help", "nonsense"):
            await room.say(f"stranger{number}", text)
    assert rows() == 0
    await room.say("ana", "hold edge")
    assert rows() == 1


async def test_the_process_of_a_chat_knows_whose_accounts_are_linked_and_nobody_else_does(
    night: Night, room: Process, ledger: Ledger
) -> None:
    link(ledger, "dan", workspace="other.example.org")
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    asked = {"workspace": WORKSPACE}
    found = (await night.api.get("/chat/people", params=asked, headers=shown)).json()["people"]
    assert found == {f"@{person}:{WORKSPACE}": person for person in ("ana", "ben", "cleo", "dan")}
    assert (await night.api.get("/chat/people", params=asked)).status_code == 403


async def test_a_room_that_is_silent_is_named_in_the_status_of_its_fleet_until_it_is_heard(
    night: Night, room: Process, ledger: Ledger
) -> None:
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    why = f"@penstock:{WORKSPACE} cannot join {ROOM}: M_FORBIDDEN; invite it there"
    for silent, named in (([ROOM], [why]), (["!other:chat.example.org"], []), ([], [])):
        rooms = [{"channel": channel, "why": why} for channel in silent]
        body = {"workspace": WORKSPACE, "silent": rooms}
        for _ in range(2):
            answer = await night.api.post("/chat/rooms", json=body, headers=shown)
            assert answer.status_code == 200, answer.text
        status = (await night.api.get("/fleets/edge")).json()
        assert status["silent_rooms"] == named
        assert needs_operator({**status, "concern": None}) is bool(named)
        assert (why in (await room.say("dan", "status edge")).text) is bool(named)
    person = await night.api.post("/chat/rooms", json=body)
    assert person.status_code == 403, person.text


async def test_a_card_is_noted_in_rooms_that_the_fleets_file_names_and_in_no_other(
    night: Night, room: Process, ledger: Ledger
) -> None:
    shown = {"Authorization": f"Bearer {token(ledger)}"}
    told = {"workspace": WORKSPACE, "channel": ROOM, "change": "edge-1", "message": "$card", "digest": "on-0"}
    for elsewhere in ({"channel": "!other:chat.example.org"}, {"workspace": "other.example.org"}):
        answer = await night.api.post("/chat/cards", json=told | elsewhere, headers=shown)
        assert answer.status_code == 422, answer.text
        assert "is not spoken of in" in answer.text
    assert ledger.cards_of(WORKSPACE, ["edge-1"]) == {}
    assert (await night.api.post("/chat/cards", json=told, headers=shown)).status_code == 200
    person = await night.api.post("/chat/cards", json=told)
    assert person.status_code == 404, person.text


@pytest.mark.usefixtures("no_refill")
async def test_whoever_has_no_token_of_a_chat_takes_nothing_from_those_whose_names_they_write(
    night: Night, room: Process, ledger: Ledger
) -> None:
    grants = {EVERY_FLEET: frozenset({Role.OPERATOR})}
    other = ledger.make_token("script", grants, timedelta(days=1), "root")[0]
    imposter = Process(night.api, other)
    answers = [await imposter.say("ana", "hold edge") for _ in range(30)]
    assert {one.status for one in answers} <= {403, 429}
    assert answers[0].status == 403
    assert answers[-1].status == 429  # of their own, whoever they say that they are
    assert (await room.say("ana", "hold edge")).begun == "hold"
