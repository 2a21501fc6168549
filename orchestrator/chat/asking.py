"""The API as the chat's process asks it: at the local socket or at a URL, with the chat's own token."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx

from orchestrator.chat.file import ChatFile
from policies.model.chat import ChatAnswer, ChatCard, ChatMessage, ChatPeople, ChatPlaces, ShownCard
from policies.model.notice import Delivery

ANSWER_SECONDS = 40.0
"""Longer than the service waits for a ledger, a change and an engine, one after the other, and than a way
back waits that begins while reconcile looks at the fleet."""

MOST_NOTICES = 200

Json = dict[str, Any]


class ApiAway(Exception):
    """Nobody answers, or not now; the same request may be made again."""


class ApiRefuses(Exception):
    """The API says no, and would again."""


class ApiBusy(ApiAway):
    """Somebody asks too often; nothing was done."""


class Api:
    """The service, as a process of the role chat may ask it."""

    def __init__(self, file: ChatFile, token: str) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(file.socket)) if file.socket is not None else None
        self._client = httpx.AsyncClient(
            base_url=f"{file.url.rstrip('/')}/v1",
            transport=transport,
            headers={"Authorization": f"Bearer {token}"},
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )

    async def message(self, said: ChatMessage) -> ChatAnswer:
        """Hand a message on; the same one may be handed on again."""
        return ChatAnswer.model_validate(
            await self._ask("POST", "/chat/messages", said.model_dump(mode="json"))
        )

    async def people(self, workspace: str) -> dict[str, str]:
        """Return the person of each linked account."""
        found = await self._ask("GET", "/chat/people", query={"workspace": workspace})
        return ChatPeople.model_validate(found).people

    async def note_silent(self, workspace: str, silent: Mapping[str, str]) -> None:
        """Report in which rooms nothing is received, and why."""
        rooms = [{"channel": channel, "why": why} for channel, why in silent.items()]
        await self._ask("POST", "/chat/rooms", {"workspace": workspace, "silent": rooms})

    async def cards(self, workspace: str) -> list[ChatCard]:
        """Return the cards to be posted or edited now."""
        found = await self._ask("GET", "/chat/cards", query={"workspace": workspace})
        return [ChatCard.model_validate(one) for one in found["cards"]]

    async def shown(self, card: ShownCard) -> None:
        """Say where a card is, and what it shows."""
        await self._ask("POST", "/chat/cards", card.model_dump(mode="json"))

    async def places(self, workspace: str, fleet: str, change: str | None) -> ChatPlaces:
        """Return where something of a fleet is told."""
        query = {"workspace": workspace, "fleet": fleet} | ({"change": change} if change else {})
        return ChatPlaces.model_validate(await self._ask("GET", "/chat/places", query=query))

    async def notices(self, sink: str) -> list[Delivery]:
        """Return what this sink has not had yet, who is to be woken first."""
        found = await self._ask("GET", f"/notices/outbox/{sink}", query={"limit": str(MOST_NOTICES)})
        return [Delivery.model_validate(one) for one in found["deliveries"]]

    async def delivered(self, sink: str, keys: list[str]) -> None:
        """Say that this sink has had these; a repeat changes nothing."""
        body = {"keys": keys}
        await self._ask("POST", f"/notices/outbox/{sink}/delivered", body, key=uuid4().hex)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        key: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = await self._client.request(method, path, json=body, params=query, headers=headers)
            said: Json = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ApiAway(f"penstock's API does not answer: {type(error).__name__}") from error
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise ApiBusy(str(said.get("detail")))
        if answer.status_code in {409, 502, 503, 504}:
            raise ApiAway(str(said.get("detail", answer.status_code)))
        if answer.is_error:
            raise ApiRefuses(str(said.get("detail", answer.status_code)))
        return said
