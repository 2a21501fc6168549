"""Notices as incidents by PagerDuty's Events API v2: triggered, acknowledged and resolved by their key."""

import json
from pathlib import Path

from activities.drivers.notices.port import ONCE, Sink
from activities.drivers.notices.posting import post, trusted
from activities.drivers.notices.text import Spell, headline, lines
from activities.drivers.private_files import secret_line
from policies.model.notice import Delivery, Notice, NoticeLevel, Occasion
from policies.model.notice_rules import PagerdutySink

_SEVERITIES = {NoticeLevel.INFO: "info", NoticeLevel.NEEDS_YOU: "warning", NoticeLevel.PAGE: "critical"}


class Pagerduty(Sink):
    """One integration of PagerDuty, or of what speaks like it."""

    repeats_after = None
    occasions = ONCE | {Occasion.ACKNOWLEDGED}

    def __init__(self, settings: PagerdutySink, folder: Path, spell: Spell) -> None:
        """Take the settings; files are from that folder on."""
        self._settings = settings
        self._folder = folder
        self._spell = spell

    def ready(self) -> None:
        """Read the routing key and the authorities."""
        self._key()
        trusted(self._settings, self._folder)

    async def tell(self, delivery: Delivery) -> str:
        """Resolve what is settled, and trigger or acknowledge an incident where somebody is needed."""
        said = "nothing is left to resolve"
        for settled in delivery.resolved:
            said = await self._post(settled, "resolve")
        notice = delivery.notice
        if delivery.occasion is Occasion.ACKNOWLEDGED:
            return await self._post(notice, "acknowledge")
        if delivery.occasion is Occasion.SAID and notice.level is not NoticeLevel.INFO:
            said = await self._post(notice, "trigger")
            if delivery.settled is not None:  # it came late, and nobody is to be called for it any more
                said = await self._post(notice, "resolve")
        return said

    def _key(self) -> str:
        return secret_line(self._folder / self._settings.routing_key_file, "the routing key")

    async def _post(self, notice: Notice, action: str) -> str:
        key = self._key()
        event: dict[str, object] = {
            "routing_key": key,
            "event_action": action,
            "dedup_key": notice.key,
        }
        if action == "trigger":
            event["payload"] = {
                "summary": headline(notice),
                "source": notice.gateway or notice.fleet,
                "severity": _SEVERITIES[notice.level],
                "timestamp": notice.at.isoformat(),
                "component": notice.change or notice.fleet,
                "group": notice.fleet,
                "class": notice.state,
                "custom_details": {"said": list(lines(notice, self._spell))},
            }
        headers, body = {"Content-Type": "application/json"}, json.dumps(event).encode()
        return await post(self._settings, self._folder, body, headers, secrets=[key])
