"""A fleet that is spoken of in a room, and people whose accounts are linked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx

from orchestrator.store.ledger import Ledger
from policies.model.people import EVERY_FLEET, Role
from policies.model.value import Value

WORKSPACE, ROOM = "chat.example.org", "!room:chat.example.org"
ROLES = {"ana": "operator", "ben": "operator", "cleo": "approver", "dan": "viewer"}
USERS = {name: 61_000 + number for number, name in enumerate(ROLES)}
"""Users of the host by number, which no host has."""
PEOPLE = "apiVersion: penstock/v1\npeople:\n" + "".join(
    f"  - {{name: {name}, system_users: ['uid:{USERS[name]}'], roles: {{'*': [{role}]}}}}\n"
    for name, role in ROLES.items()
)


def with_chat(folder: Path, more: str = "", *, workspace: str = WORKSPACE, room: str = ROOM) -> None:
    """Have the fleet edge spoken of in the room, and everybody known."""
    file = folder / "fleets" / "edge.yaml"
    said = f"chat:\n  channels: [{{workspace: {workspace}, channel: '{room}'}}]\n{more}"
    file.write_text(file.read_text().partition("chat:\n")[0] + said)
    (folder / "people.yaml").write_text(PEOPLE)
    (folder / "people.yaml").chmod(0o600)


def link(ledger: Ledger, person: str, *, workspace: str = WORKSPACE, account: str | None = None) -> str:
    """Make an account the person's, as the page does; return the account."""
    user, secret = account or f"@{person}:{workspace}", uuid4().hex
    ledger.offer_chat_link(secret, workspace, user, person, timedelta(minutes=1))
    ledger.link_chat(secret, person, USERS[person], None, timedelta(days=90))
    return user


def token(ledger: Ledger) -> str:
    """Return what the chat's process shows."""
    grants = {EVERY_FLEET: frozenset({Role.CHAT})}
    return ledger.make_token(f"chat-{uuid4().hex[:8]}", grants, timedelta(days=1), "root")[0]


class Answered(Value):
    """What was answered."""

    status: int
    lines: tuple[str, ...] = ()
    refused: str | None = None
    repeated: bool = False
    begun: str | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Process:
    """A process of a chat that hands on what tests say."""

    def __init__(self, api: httpx.AsyncClient, shown: str) -> None:
        self._api = api
        self._shown = {"Authorization": f"Bearer {shown}"}

    async def say(self, person: str, text: str, **more: object) -> Answered:
        """Hand on a message of that person's account."""
        body = {
            "workspace": WORKSPACE,
            "user": f"@{person}:{WORKSPACE}",
            "name": person,
            "channel": ROOM,
            "message": uuid4().hex,
            "text": f"!penstock {text}",
            "at": datetime.now(UTC).isoformat(),
        } | more
        return await self.hand_on(body)

    async def hand_on(self, body: dict[str, object]) -> Answered:
        """Hand on a message as it is."""
        answer = await self._api.post("/chat/messages", json=body, headers=self._shown)
        said = answer.json()
        if answer.status_code != httpx.codes.OK:
            return Answered(status=answer.status_code, lines=(str(said),), refused=said.get("code"))
        known = {name: said[name] for name in ("lines", "refused", "repeated", "begun")}
        return Answered(status=answer.status_code, **known)


def code_in(answer: Answered) -> str:
    """Return the code of an answer."""
    return answer.text.rpartition("confirm ")[2].split()[0]
