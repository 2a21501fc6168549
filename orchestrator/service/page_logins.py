"""Logins at the page: by a one-time link that a user of this host makes, and by the identity provider.

A session says who somebody is; what they may do is looked up in people.yaml at every request.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from orchestrator.refusals import Refusals
from orchestrator.service.acting import Acting
from orchestrator.service.background import Pool
from orchestrator.service.identity import IdentityProvider, Vouched
from orchestrator.service.login_attempts import LoginAttempt
from orchestrator.service.one_person import one_person
from orchestrator.service.patience import recognised
from orchestrator.service.people import PeopleFile
from orchestrator.store.ledger import Ledger
from orchestrator.store.page_sessions import PageSession
from policies.model.errors import NotAllowed, Refused, TooMany, Unavailable
from policies.model.people import Caller, Via
from policies.model.value import Value

LINK_LIVES = timedelta(minutes=10)
SESSION_LIVES = timedelta(hours=10)
"""A shift: who was logged in at its end logs in again at the next one."""

SECRET_BYTES = 32

PROVIDER_SECONDS = 10.0
"""How long whoever logs in waits for the provider, however many do at once."""

CALLBACK = "/login/callback"
"""Where the provider sends browsers back to; an administrator registers it there."""

MOST_CODES = 20
"""Codes of logins that are redeemed or wait for it; more are refused at once."""

CODES = Pool("codes", 4, MOST_CODES)
"""Which redeems codes at the provider: anybody can make one up, and no other work waits for it."""


class LoginLink(Value):
    """What logs one person in once, and until when it is good."""

    url: str
    person: str
    expires: datetime


@dataclass(frozen=True)
class PageLogins:
    """Who is logged in at the page."""

    ledger: Ledger
    people: PeopleFile
    acts: Acting
    page: str | None
    """Where people reach the page; None where no port answers them."""
    safe_ledger: Ledger
    """The same ledger by connections of its own, for who is logged in."""
    refusals: Refusals

    async def make_link(self, caller: Caller, uid: int | None) -> LoginLink:
        """Make a link that logs the caller in, whom the kernel has named at the local socket.

        Raises:
            NotAllowed: The caller came by another way; whoever was vouched for logs in at the page itself.
            Refused: Nobody reaches the page.
        """
        if self.page is None:
            raise Refused(
                "nothing says where people reach the page; set PENSTOCK_PAGE_URL, or PENSTOCK_API_ADDRESS to "
                "one address, such as 127.0.0.1:8787"
            )
        at = self.page.rstrip("/")
        if uid is None or caller.machine:
            raise NotAllowed("only people at the orchestrator's local socket get a link; log in at the page")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        keep = partial(self.ledger.keep_page_link, secret, caller.person, uid, LINK_LIVES)

        async def make() -> LoginLink:
            expires = await asyncio.to_thread(keep)
            return LoginLink(url=f"{at}/login/link/{secret}", person=caller.person, expires=expires)

        return await self.acts.audited(caller, "login link asked for", None, {}, make)

    async def whose_link(self, link: str) -> str:
        """Return whom the link logs in; NotAllowed when it is none or was opened before."""
        return (await asyncio.to_thread(self.ledger.page_link, link)).person

    async def open_link(self, link: str, address: str) -> str:
        """Use the link up and return the secret of a session.

        Raises:
            NotAllowed: It is none, was opened before or is too old.
        """
        secret = secrets.token_urlsafe(SECRET_BYTES)
        await asyncio.to_thread(self.ledger.open_page_link, link, secret, SESSION_LIVES, address)
        return secret

    async def issuer(self) -> str | None:
        """Return which provider people log in at, None when there is none or nobody could come back.

        Raises:
            BadInput: people.yaml is wrong.
        """
        found = await asyncio.to_thread(self.people.provider)
        return None if found is None or self.page is None else found.settings.issuer

    async def sent_to_provider(self, browser: str, to: str) -> str:
        """Return where the browser of that secret goes to log in, and to see that path afterwards.

        Raises:
            Refused: There is no provider, or it logs nobody in by browser.
            Unavailable: It does not answer now.
        """
        provider, back = await self._provider()
        await provider.ready()
        return provider.authorization(LoginAttempt.begun(browser, to), back)

    async def open_code(self, attempt: LoginAttempt, code: str, address: str) -> str:
        """Redeem a code that came back with this attempt; return the secret of a session.

        Raises:
            NotAllowed: The provider vouches for nobody, or for nobody who has a role here.
            TooMany: As many people log in now as may wait for the provider.
            Unavailable: The provider does not answer now.
        """
        provider, back = await self._provider()
        await provider.ready()
        try:
            vouched = await _redeemed(partial(provider.redeemed, code, attempt, back))
            caller = await asyncio.to_thread(self._vouched_for, vouched)
        except NotAllowed as refused:
            self.refusals.note(Via.WEB, "login refused", address, str(refused))
            raise
        return await self.begin(caller.person, vouched, address)

    async def begin(self, person: str, vouched: Vouched, address: str) -> str:
        """Begin a session of somebody for whom the provider has just vouched, and return its secret."""
        secret, said = secrets.token_urlsafe(SECRET_BYTES), vouched.model_dump_json()
        await asyncio.to_thread(self.ledger.begin_page_session, secret, person, said, SESSION_LIVES, address)
        return secret

    async def caller(self, secret: str, address: str) -> Caller:
        """Return who shows this session, with the roles of this moment.

        Raises:
            NotAllowed: It is over, or who began it has no role any more.
        """
        return await recognised(partial(self._caller, secret, address))

    async def end(self, secret: str) -> None:
        """Ensure that this session is over."""
        await asyncio.to_thread(self.ledger.end_page_session, secret)

    def _caller(self, secret: str, address: str) -> Caller:
        session = self.safe_ledger.page_session(secret)
        found = self._recognised(session)
        if found.person != session.person:
            raise NotAllowed(f"{session.person} is called {found.person} by now; log in again")
        return found.model_copy(update={"via": Via.WEB, "address": address})

    def _recognised(self, session: PageSession) -> Caller:
        if session.uid is not None:
            return self.people.at_the_socket(session.uid)
        return self._vouched_for(Vouched.model_validate_json(session.vouched or "{}"))

    def _vouched_for(self, vouched: Vouched) -> Caller:
        believed = self.people.people().oidc
        if believed is None or believed.issuer != vouched.issuer:
            raise NotAllowed(f"{vouched.issuer} is not believed here any more; log in again")
        return one_person(self.safe_ledger, self.people.of_vouched(vouched))

    async def _provider(self) -> tuple[IdentityProvider, str]:
        """Return the provider, and where it sends browsers back to."""
        found = await asyncio.to_thread(self.people.provider)
        if found is None or self.page is None:
            raise Refused(
                "nobody logs in here at an identity provider: people.yaml names none, or nothing says where "
                "the page is; penstock page prints a link"
            )
        return found, self.page.rstrip("/") + CALLBACK


async def _redeemed(work: Callable[[], Vouched]) -> Vouched:
    """Have the provider redeem a code, and wait for a bounded time."""
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            return await CODES.run(work)
    except TooMany as full:
        sentence = f"{MOST_CODES} people log in at the identity provider at this moment; log in again"
        raise TooMany(sentence, full.after) from full
    except TimeoutError as error:
        raise Unavailable("the identity provider does not answer in time; log in again later") from error
