"""Links of chats: which account is which person, made by that person at the page, for ninety days.

The address that a chat gives links nothing by itself: whoever is logged in sees which account it is about,
and has to say yes. A link says who somebody is; what they may do is looked up in people.yaml each time.
"""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from orchestrator.service.acting import Acting
from orchestrator.service.identity import Vouched
from orchestrator.service.one_person import one_person
from orchestrator.service.page_logins import SESSION_LIVES
from orchestrator.service.people import PeopleFile
from orchestrator.store.chat import Account, ChatLink
from orchestrator.store.ledger import Ledger
from policies.access import Action, may_there
from policies.model.chat import ChatLinkRow, ChatMessage
from policies.model.errors import NotAllowed, Refused
from policies.model.people import EVERY_FLEET, ROOT, Caller, Via

OFFER_LIVES = timedelta(minutes=10)
LINK_LIVES = timedelta(days=90)
SECRET_BYTES = 32


@dataclass(frozen=True)
class ChatLinks:
    """Who is who in chats."""

    ledger: Ledger
    people: PeopleFile
    acts: Acting
    page: str | None
    """Where people reach the page; None where no port answers them."""
    safe_ledger: Ledger
    """The same ledger by connections of its own, for the person of an account."""

    def offer(self, said: ChatMessage) -> str:
        """Return an address where somebody who is logged in makes this account theirs, once.

        Raises:
            Refused: Nobody reaches the page.
        """
        if self.page is None:
            raise Refused("nothing says where people reach the page: an administrator sets PENSTOCK_PAGE_URL")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        self.ledger.offer_chat_link(secret, said.workspace, said.user, said.name, OFFER_LIVES)
        return f"{self.page.rstrip('/')}/chat/link/{secret}"

    async def offered(self, secret: str) -> Account:
        """Return which account an address is about; NotAllowed when it is good for nothing."""
        return await asyncio.to_thread(self.ledger.offered_chat_link, secret)

    async def confirm(self, caller: Caller, session: str, secret: str) -> ChatLink:
        """Make the account that the address is about the caller's, who shows this session of the page.

        Raises:
            NotAllowed: The address is good for nothing, or the caller is nobody by name.
        """
        known = await asyncio.to_thread(self.ledger.page_session, session)
        if known.uid is not None:
            named = await asyncio.to_thread(self.people.of_user, known.uid)
            if named.person != caller.person:
                raise NotAllowed(f"{caller.person} is {named.person} by now; log in again")
        if caller.machine or caller.person == ROOT:
            raise await self.acts.refuse(
                caller, None, f"{caller.person} is no person; log in by your own name"
            )
        link = partial(self.ledger.link_chat, secret, caller.person, known.uid, known.vouched, LINK_LIVES)
        return await asyncio.to_thread(link)

    def who(self, workspace: str, user: str) -> Caller:
        """Return which person the account is, with the roles of this moment.

        Raises:
            NotAllowed: It is nobody, or its person has no role any more.
        """
        link = self.safe_ledger.chat_link(workspace, user)
        if link is None:
            raise NotAllowed('this chat account is not linked to a person. Say "!penstock link".')
        found = self._recognised(link)
        if found.person != link.person:
            raise NotAllowed(f'{link.person} is called {found.person} by now. Say "!penstock link" again.')
        address = f"{workspace}/{user}"
        known_by = (*found.known_by, f"chat:{address}")
        return found.model_copy(update={"via": Via.CHAT, "address": address, "known_by": known_by})

    def linked(self, workspace: str) -> dict[str, str]:
        """Return the person of each account of a workspace that is linked now."""
        found, now = self.safe_ledger.chat_links(), datetime.now(UTC)
        return {one.user: one.person for one in found if one.workspace == workspace and one.expires > now}

    def _recognised(self, link: ChatLink) -> Caller:
        if link.uid is not None:
            return self.people.of_user(link.uid)
        vouched = Vouched.model_validate_json(link.vouched or "{}")
        believed = self.people.people().oidc
        if believed is None or believed.issuer != vouched.issuer:
            raise NotAllowed(f'{vouched.issuer} is not believed here any more. Say "!penstock link" again.')
        if (
            datetime.now(UTC) - link.since > SESSION_LIVES
        ):  # whoever left a group since, only the provider knows
            vouched = vouched.model_copy(update={"groups": ()})
        return one_person(self.safe_ledger, self.people.of_vouched(vouched))

    async def all(self, caller: Caller) -> tuple[ChatLinkRow, ...]:
        """Return the caller's own links; those of everybody for an administrator of every fleet."""
        of = None if may_there(caller, Action.ADMINISTER, EVERY_FLEET) else caller.person
        found = await asyncio.to_thread(self.ledger.chat_links, of)
        fields = {*ChatLinkRow.model_fields}
        return tuple(ChatLinkRow(**one.model_dump(include=fields)) for one in found)

    async def unlink(self, caller: Caller, workspace: str, user: str, reason: str) -> bool:
        """Ensure that an account is nobody, at once; return whether it was somebody.

        Raises:
            NotAllowed: It is somebody else's, and the caller administers not every fleet.
        """
        known = await asyncio.to_thread(self.ledger.chat_link, workspace, user)
        own = known is not None and known.person == caller.person and not caller.machine
        if not own and not may_there(caller, Action.ADMINISTER, EVERY_FLEET):
            sentence = f"{caller.person} may unlink their own accounts; another's takes admin on '*'"
            raise await self.acts.refuse(caller, None, sentence)
        unlink = partial(self.ledger.unlink_chat, workspace, user, caller.person, caller.via, reason)
        return await asyncio.to_thread(unlink)
