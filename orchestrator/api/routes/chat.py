"""Chat: what a chat's process hands on and shows, and which accounts are people."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from orchestrator.api.limits import Kind
from orchestrator.api.once import Once
from orchestrator.api.routes.commands import Why
from orchestrator.api.who import Asking, Recognised, Serving, limits_of
from orchestrator.service.chat import is_chat
from policies.chat.grammar import is_safe
from policies.model.chat import (
    Account,
    ChatAnswer,
    ChatCard,
    ChatLinkRow,
    ChatMessage,
    ChatPeople,
    ChatPlaces,
    ShownCard,
    SilentRooms,
    Workspace,
)
from policies.model.value import Name, Value

router = APIRouter(tags=["chat"])


class Cards(Value):
    """Cards to be posted or edited now."""

    cards: tuple[ChatCard, ...]


class Noted(Value):
    """What was noted."""

    change: str


class ChatLinks(Value):
    """Chat accounts that are people."""

    links: tuple[ChatLinkRow, ...]


class Unlinking(Value):
    """Which account is to be nobody, and why."""

    workspace: Workspace
    user: Account
    reason: Why


class Unlinked(Value):
    """Whether the account was somebody until now."""

    user: str
    new: bool


@router.post("/chat/messages")
async def message(said: ChatMessage, request: Request, process: Recognised, service: Serving) -> ChatAnswer:
    """Answer one message of a chat; an order in it is carried out once, however often it comes."""
    limits, account = limits_of(request), f"chat {said.workspace} {said.user}"
    safe = is_safe(said)
    kind = Kind.SAFE if safe else Kind.CHANGE
    if not is_chat(process):  # whoever else asks takes nothing from those whose names they write
        account, kind, safe = process.person, Kind.CHANGE, True
    limits.take(account, kind)
    if not safe:  # a crowd of strangers keeps nobody from holding a change
        limits.take(f"chat {said.workspace}", Kind.CHAT)
    answer = await service.chat.answer(process, said)
    if answer.repeated:  # what somebody else sends again is not counted against whoever said it
        limits.give_back(account, kind)
    return answer


@router.get("/chat/people")
async def people(process: Asking, service: Serving, workspace: Annotated[Workspace, Query()]) -> ChatPeople:
    """List the linked accounts of a workspace with their people, for the process of that chat."""
    return await service.chat.people(process, workspace)


@router.get("/chat/cards")
async def cards(process: Asking, service: Serving, workspace: Annotated[Workspace, Query()]) -> Cards:
    """List the cards of a workspace that do not show yet how their changes stand."""
    return Cards(cards=await service.chat.cards_wanted(process, workspace))


@router.post("/chat/cards")
async def shown(card: ShownCard, process: Asking, service: Serving) -> Noted:
    """Note that a card was posted or edited; a repeat notes the same."""
    await asyncio.to_thread(service.chat.cards.shown, process, card)
    return Noted(change=card.change)


@router.post("/chat/rooms")
async def rooms(silent: SilentRooms, process: Asking, service: Serving) -> SilentRooms:
    """Note in which rooms the process of a chat receives nothing; a repeat notes the same."""
    await asyncio.to_thread(service.chat.cards.note_silent, process, silent)
    return silent


@router.get("/chat/places")
async def places(
    process: Asking,
    service: Serving,
    workspace: Annotated[Workspace, Query()],
    fleet: Annotated[Name, Query()],
    change: Annotated[Name | None, Query()] = None,
) -> ChatPlaces:
    """Say where something of a fleet is told: in the thread of the change's card, where there is one."""
    return await asyncio.to_thread(service.chat.cards.places, process, workspace, fleet, change)


@router.get("/chat/links")
async def links(caller: Asking, service: Serving) -> ChatLinks:
    """List the caller's own chat accounts; an administrator of every fleet sees everybody's."""
    return ChatLinks(links=await service.chat_links.all(caller))


@router.post("/chat/unlink", response_model=Unlinked)
async def unlink(asked: Unlinking, once: Once) -> Response:
    """Ensure that an account is nobody, at once."""

    async def work() -> Unlinked:
        new = await once.service.chat_links.unlink(once.caller, asked.workspace, asked.user, asked.reason)
        return Unlinked(user=asked.user, new=new)

    return await once.answer(work)
