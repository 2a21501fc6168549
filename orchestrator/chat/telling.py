"""Telling notices in a chat: each in the thread of its change, none held up by those of another change.

What has to wake somebody goes first. A change whose card is not there yet, or whose room takes nothing, is
tried again by itself, ever more seldom, while the others are told.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from orchestrator.chat.asking import Api, ApiRefuses
from orchestrator.chat.port import Chat, ChatAway, Post
from policies.chat.spelling import spelled
from policies.model.notice import Delivery, NoticeLevel, Occasion

CARD_WITHIN, PAGE_WITHIN = timedelta(minutes=2), timedelta(seconds=10)
"""How long a notice waits for the card in whose thread it is told; and how long one that wakes somebody."""
MOST_PLACES = 30
"""Changes that are told of in one round: each is a question to the API, which answers so many a minute."""
FIRST_PAUSE, LONGEST_PAUSE, PAGE_PAUSE = 2.0, 60.0, 8.0
"""Seconds until a change is tried again of which nothing could be told; the last where it wakes somebody."""
AWAY_AFTER = 3
"""Fleets whose rooms take nothing, after which the whole chat is away for this round."""

Place = tuple[str, str | None]
"""A fleet, and the change in whose thread something is told."""
_log = logging.getLogger(__name__)


class Telling:
    """What one sink has not had yet, told in its rooms; it is had once it was said."""

    def __init__(self, chat: Chat, api: Api, sink: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell there what the sink of that name is to have."""
        self._chat = chat
        self._api = api
        self._sink = sink
        self._clock = clock
        self._pauses: dict[Place, tuple[float, float]] = {}
        """When each that could not be told was tried last, and how long it waits since."""

    async def tell(self) -> None:
        """Tell what is due, once.

        Raises:
            ApiAway: The API does not answer, or has been asked too often.
        """
        places = _by_place(await self._api.notices(self._sink))
        self._pauses = {place: pause for place, pause in self._pauses.items() if place in places}
        in_vain, asked = set[str](), 0
        due = [place for place, deliveries in places.items() if self._is_due(place, deliveries)]
        for place in due:
            if place[0] in in_vain:  # a room that took nothing a moment ago takes nothing of another change
                continue
            try:
                told = await self._tell_there(place, places[place])
            except (ChatAway, ApiRefuses) as away:
                _log.warning("notices of %s wait: %s", place[1] or place[0], away)
                in_vain.add(place[0])
                told = False
            except Exception:  # noqa: BLE001 - one that nobody thought of keeps no other from being told
                _log.exception("notices of %s wait", place[1] or place[0])
                told = False
            if told:
                self._pauses.pop(place, None)
            else:
                self._pause(place)
            asked += 1
            if asked == MOST_PLACES or len(in_vain) == AWAY_AFTER:
                return

    def _pause(self, place: Place) -> None:
        _, before = self._pauses.get(place, (0.0, 0.0))
        pause = min(2 * before or FIRST_PAUSE, LONGEST_PAUSE)
        self._pauses[place] = (self._clock(), pause)

    def _is_due(self, place: Place, deliveries: Sequence[Delivery]) -> bool:
        tried, pause = self._pauses.get(place, (0.0, 0.0))
        most = PAGE_PAUSE if any(map(_wakes, deliveries)) else LONGEST_PAUSE
        return self._clock() - tried >= min(pause, most)

    async def _tell_there(self, place: Place, deliveries: Sequence[Delivery]) -> bool:
        """Tell all that is due of one change; return False where it waits for its card."""
        fleet, change = place
        places = await self._api.places(self._chat.workspace, fleet, change)
        if change is not None and None in places.rooms.values():
            # A notice that comes before the card of its change waits for the card, but not for long.
            now = datetime.now(UTC)
            deliveries = [one for one in deliveries if now - one.notice.at >= _card_within(one)]
            if not deliveries:
                return False
        for delivery in deliveries:
            notice = delivery.notice
            loud = _wakes(delivery) and delivery.occasion is Occasion.SAID
            for room, card in places.rooms.items():
                named = f"{notice.key}/{delivery.occasion}/{room}"
                await self._chat.say(
                    Post(
                        room,
                        notice_lines(delivery),
                        hashlib.sha256(named.encode()).hexdigest()[:32],
                        thread=card if self._chat.threads else None,
                        mentions=places.mentions if loud else (),
                    )
                )
            await self._api.delivered(self._sink, [notice.key])
        return True


def _by_place(deliveries: Sequence[Delivery]) -> Mapping[Place, list[Delivery]]:
    """Return them by what they are about, who has to be woken first, each in the order of time."""
    found: dict[Place, list[Delivery]] = {}
    for one in sorted(deliveries, key=lambda one: not _wakes(one)):
        found.setdefault((one.notice.fleet, one.notice.change), []).append(one)
    return {place: sorted(ones, key=lambda one: one.notice.at) for place, ones in found.items()}


def _wakes(delivery: Delivery) -> bool:
    return delivery.notice.level is NoticeLevel.PAGE


def _card_within(delivery: Delivery) -> timedelta:
    return PAGE_WITHIN if _wakes(delivery) else CARD_WITHIN


def notice_lines(delivery: Delivery) -> list[str]:
    """Return what a notice says, as lines."""
    notice = delivery.notice
    if delivery.occasion is Occasion.SETTLED:
        return [f"Over: {one.headline}" for one in delivery.resolved] or [notice.headline]
    can = [line for offer in notice.offers if (line := spelled(offer)) is not None]
    return [
        notice.headline,
        *notice.sentences,
        *([f"You can: {' | '.join(can)}"] if can else []),
        *([f"Runbook: {notice.runbook}"] if notice.runbook else []),
    ]
