"""The night: an upgrade waits for its patch window, fails, goes back by itself, and a chat is told.

In the evening people speak in the room; from the opening of the window on nobody types anything.
"""

import asyncio
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx

from deploy.lab.chat_room import LabRoom, Posted, chat_room
from deploy.lab.evening import evening
from deploy.lab.lab import FLEET, Lab
from deploy.lab.screen import Screen
from deploy.lab.stories import LOOK_EVERY, Storyteller, Told
from policies.model.change import Outcome, Phase
from policies.model.errors import BadInput, Unavailable
from policies.model.status import ChangeStatus
from policies.model.windows import PatchWindow

ZONE = "Europe/Berlin"
OPENS_IN = timedelta(seconds=25)
"""When the window opens on a machine with nothing else to do."""
COMMANDS_LONG = 20
"""How many commands long it takes to open on a busy machine: four are typed before, some again, people
speak in the room, and people are told that it waits once more before it opens."""
OPEN_FOR = timedelta(hours=4)
MIN_TAIL = timedelta(minutes=15)
COMMAND_WITHIN = 60.0
KNOWN_WITHIN = 15.0
TOLD_WITHIN = 60.0
"""Until what has ended stands in the chat, in the folder of reports and on the page."""
REASON = "said to be a small fix"
_WAITS = "waiting for its window"
"""What every surface says of a change that waits; a window's name alone is in other sentences too."""


@dataclass
class Seen:
    """What the night has to show, each as it was seen; what is empty was not."""

    refused: str = ""
    """What a start outside of the window is told."""
    waits: str = ""
    """What `penstock status` says while the change waits."""
    stranger: str = ""
    """What somebody is told who asks for a rollback and whose account is nobody's."""
    held: str = ""
    """What a colleague is told who holds the change in the room."""
    others_code: str = ""
    """What somebody is told who sends a code that another person was given."""
    opened: str = ""
    """The first event of the wave, after the opening."""
    failed: str = ""
    """Why the canary was found bad."""
    back: str = ""
    """The last event: everybody is on known-good."""
    card: list[str] = field(default_factory=list)
    """How the change's card was, from its posting to its last edit."""
    thread: list[str] = field(default_factory=list)
    """What was told in the card's thread, in order."""
    report: str = ""
    """The file of the report."""
    page: str = ""
    """What the fleet's page says of the change, to whoever is logged in."""

    @property
    def missing(self) -> list[str]:
        """What was not seen."""
        return [name for name, value in vars(self).items() if not value]


class Night(Storyteller):
    """Plays the night on one lab, which tells its notices to a chat."""

    def __init__(self, lab: Lab, screen: Screen) -> None:
        super().__init__(lab, screen)
        self._seen = Seen()

    async def tell(self) -> Told:
        """Start the faulty release to wait for the window, let people speak, and look on."""
        lab, before, began = self._lab, self._lab.figures(), time.monotonic()
        self._screen.headline(
            f"Story: {lab.faulty.version} by night, in the patch window; people speak of it in the evening"
        )
        async with chat_room(lab) as room:
            self._screen.tell(f"a room of {room.synapse.url}, and penstock listens there: {room.room}")
            opens = await self._declared(room)
            name = await self._started()
            await self._seen_waiting(opens)
            self._screen.show(await self._lab.status(), lab.figures())
            said = await evening(room, self._screen.tell)
            self._screen.show(await self._lab.status(), lab.figures())
            self._seen.stranger, self._seen.held, self._seen.others_code = (
                said.stranger,
                said.held,
                said.others_code,
            )
            self._screen.tell("from here on nobody types anything")
            self._status = await self._followed(opens)
            result = await lab.result()
            await self._wait_for_drains()
            await self._in_the_thread(room, name, opens)
            await self._in_the_report(name)
            await self._on_the_page(room, name)
            posts = await room.posts()
        self._show([one for one in posts if _is_of_the_night(one, posts, name)])
        faulted = self._said_at("on trial")
        told = await self._told("night", result, before, self._seconds(result, faulted, began))
        told.seen = vars(self._seen)
        for what in self._seen.missing:
            self._screen.tell(f"NOT SEEN: {what}")
        return told

    # --- before midnight ---------------------------------------------------------------

    async def _declared(self, room: LabRoom) -> datetime:
        """Declare a patch window of the site that opens soon, later on a busy machine; return when."""
        began = time.monotonic()
        await self._penstock("window", "check", FLEET)
        busy = timedelta(seconds=COMMANDS_LONG * (time.monotonic() - began))
        opens = (datetime.now(UTC) + max(OPENS_IN, busy)).replace(microsecond=0)
        window = PatchWindow(
            name="night",
            tz="site",
            rrule="FREQ=DAILY",
            start=opens.astimezone(ZoneInfo(ZONE)).time(),
            duration=OPEN_FOR,
        )
        room.describe(tz=ZONE, windows=(window.model_dump(),), min_tail=MIN_TAIL)
        end = time.monotonic() + KNOWN_WITHIN
        while (checked := await self._penstock("window", "check", FLEET))[0] == 0:
            if time.monotonic() > end:
                raise Unavailable(f"the window that fleet.yaml declares is not heeded: {checked[1]}")
            await asyncio.sleep(LOOK_EVERY)
        self._screen.tell(f"$ penstock window check {FLEET}\n{checked[1]}")
        return opens

    async def _started(self) -> str:
        """Start it by the command line: without `--at window` it is refused, with it it waits."""
        start = ("upgrade", "start", FLEET, "--to", self._lab.faulty.digest, "--reason", REASON)
        code, said = await self._penstock(*start)
        if code == 0:
            raise BadInput(f"an upgrade started outside of the window: {said}")
        self._seen.refused = next(
            (line for line in said.splitlines() if "closed" in line and FLEET in line), ""
        )
        self._screen.tell(f"refused outside of the window: {self._seen.refused}")
        code, said = await self._penstock(*start, "--at", "window")
        if code != 0:
            raise BadInput(f"the upgrade did not start to wait: {said}")
        self._screen.tell(
            f"$ penstock upgrade start {FLEET} --to {self._lab.faulty.version} --at window\n{said}"
        )
        newest = await asyncio.to_thread(self._lab.installation.ledger.last_change, FLEET)
        if newest is None or newest.outcome is not None:
            raise BadInput(f"the upgrade has no name: {said}")
        return newest.name

    async def _seen_waiting(self, opens: datetime) -> None:
        """See by the command line that it waits, before the window opens."""
        while datetime.now(UTC) < opens:
            _, said = await self._penstock("status", FLEET)
            if _WAITS in said:
                self._seen.waits = said
                self._screen.tell(f"$ penstock status {FLEET}\n{said}")
                return
            await asyncio.sleep(LOOK_EVERY)

    # --- from midnight on --------------------------------------------------------------

    async def _followed(self, opens: datetime) -> ChangeStatus:
        """Look on until it has ended; note what was seen on the way."""
        while True:
            status = await self._lab.status()
            if status.phase is Phase.ENDED:
                self._screen.leave(status, self._lab.figures())
                break
            self._screen.show(status, self._lab.figures())
            await asyncio.sleep(LOOK_EVERY)
        begun = [one for one in status.events if "on trial" in one.sentence]
        if begun and begun[0].at >= opens:
            late = (begun[0].at - opens).total_seconds()
            self._seen.opened = f"{begun[0].sentence} ({late:.0f} s after the window opened)"
        if status.decision is not None:
            self._seen.failed = status.decision.reason
        if status.outcome is Outcome.ROLLED_BACK:
            self._seen.back = status.what
        return status

    # --- in the morning ----------------------------------------------------------------

    async def _in_the_thread(self, room: LabRoom, name: str, opens: datetime) -> None:
        """See the card with how it ended, and in its thread that it waited, went back, and is back."""

        def ends(post: Posted) -> bool:
            return post.replaces is not None and name in post.body and "ROLLED BACK" in post.body

        await room.heard(ends, TOLD_WITHIN)
        posts = await room.posts()
        card = next((one for one in posts if one.replaces is None and one.body.startswith(f"{name}: ")), None)
        if card is None:
            return
        edits = [one for one in posts if one.replaces == card.event]
        if edits and ends(edits[-1]):
            self._seen.card = [card.body, *(one.body for one in edits)]

        def last(post: Posted) -> bool:
            return post.thread == card.event and "rolled back" in post.body.lower()

        await room.heard(last, TOLD_WITHIN)
        thread = [one for one in await room.posts() if one.thread == card.event]
        waited = any(one.at < opens and _WAITS in one.body for one in thread)
        if waited and any(last(one) for one in thread):
            self._seen.thread = [one.body for one in thread]

    async def _in_the_report(self, name: str) -> None:
        """See the report that the API's process writes by itself."""
        page = self._lab.installation.settings.reports / f"{name}.html"
        end = time.monotonic() + TOLD_WITHIN
        while time.monotonic() < end and not self._seen.report:
            with suppress(FileNotFoundError):
                text = await asyncio.to_thread(page.read_text)
                if name in text and "rolled back" in text.lower():
                    self._seen.report = str(page)
            await asyncio.sleep(LOOK_EVERY)

    async def _on_the_page(self, room: LabRoom, name: str) -> None:
        """Log in at the page as a browser does, and see how the change ended on the fleet's page."""
        link = await self._lab.page_link()
        shown = await room.outside(_fleet_page, link)
        found = re.search(rf">{name}</a>.{{0,200}}?>rolled back<", " ".join(shown.split()))
        if found is not None:
            self._seen.page = " ".join(re.sub(r"<[^>]*>?", " ", found[0].lstrip(">").rstrip("<")).split())

    def _show(self, posts: list[Posted]) -> None:
        """Tell the room as it was: what people said, the card, its edits and its thread."""
        self._screen.tell("the room, as it was, without what it was told of the first installation:")
        for one in posts:
            how = "edits" if one.replaces else "thread" if one.thread else "says"
            who = one.sender.partition(":")[0].removeprefix("@")
            first, *more = one.body.splitlines() or [""]
            indented = "".join(f"\n                       {line}" for line in more)
            self._screen.tell(f"{who} {how}: {first}{indented}", one.at)

    async def _penstock(self, *arguments: str) -> tuple[int, str]:
        """Type a command, as root at the API's socket; return its exit code and what it said."""
        socket = {"PENSTOCK_SOCKET": str(self._lab.folder / "penstock.sock")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])} | socket,
        )
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said.decode(errors="replace").strip()


def _is_of_the_night(post: Posted, posts: list[Posted], name: str) -> bool:
    """Say whether a post is of people, an answer to them, or of this change."""
    of = post.replaces or post.thread or post.event
    first = next((one for one in posts if one.event == of), post)
    return not first.body.startswith(f"{FLEET}-") or first.body.startswith(f"{name}: ")


def _fleet_page(link: str) -> str:
    """Return the text of the fleet's page to whoever opens the link."""
    place, _, rest = link.partition("/login/")
    named = urlsplit(place)  # browsers know names under .localhost, and this host's resolver may not
    with httpx.Client(
        base_url=f"{named.scheme}://127.0.0.1:{named.port}",
        headers={"Host": named.netloc},
        timeout=COMMAND_WITHIN,
    ) as browser:
        browser.post(f"/login/{rest}", headers={"Origin": place}).read()
        return browser.get(f"/fleets/{FLEET}").raise_for_status().text
