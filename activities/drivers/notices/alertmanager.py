"""Notices as alerts in an Alertmanager, by version 2 of its API: what waits fires until it is settled."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.drivers.notices.port import Sink
from activities.drivers.notices.posting import post
from activities.drivers.notices.secret import secret_line
from activities.drivers.notices.text import Spell, headline, lines
from policies.model.notice import Delivery, Notice, Occasion
from policies.model.notice_rules import AlertmanagerSink

LASTS = timedelta(minutes=15)
"""How long what waits fires when it is not heard of again: a worker that dies leaves no alert for ever."""

SHORT = timedelta(minutes=5)
"""How long what has happened, and waits for nobody, fires."""


class Alertmanager(Sink):
    """One Alertmanager."""

    repeats_after = LASTS / 3
    occasions = frozenset(Occasion)

    def __init__(self, settings: AlertmanagerSink, folder: Path, spell: Spell) -> None:
        """Take the settings; files are from that folder on."""
        self._settings = settings
        self._folder = folder
        self._spell = spell

    async def tell(self, delivery: Delivery) -> str:
        """Have the notice fire, and what it settles be resolved."""
        now = datetime.now(UTC)
        alerts = [self._alert(one, now) for one in delivery.resolved]
        if delivery.occasion is not Occasion.SETTLED:
            lasts = LASTS if delivery.waits else SHORT
            alerts.append(self._alert(delivery.notice, delivery.settled or now + lasts))
        if not alerts:
            return "nothing is left to resolve"
        settings, headers = self._settings, {"Content-Type": "application/json"}
        if settings.token_file is not None:
            headers["Authorization"] = (
                f"Bearer {secret_line(self._folder / settings.token_file, 'the token')}"
            )
        own, url = settings.authorities, f"{settings.url.rstrip('/')}/api/v2/alerts"
        return await post(url, json.dumps(alerts).encode(), headers, self._folder / own if own else None)

    def _alert(self, notice: Notice, ends: datetime) -> dict[str, object]:
        named = {"change": notice.change, "gateway": notice.gateway}
        state = "".join(word.capitalize() for word in notice.state.split("_"))
        return {
            "labels": {
                "alertname": f"Penstock{state}",
                "fleet": notice.fleet,
                "severity": notice.level.value,
                "notice": notice.key,
                **{name: value for name, value in named.items() if value is not None},
            },
            "annotations": {
                "summary": headline(notice),
                "description": "\n".join(lines(notice, self._spell)),
                **({"runbook": notice.runbook} if notice.runbook is not None else {}),
            },
            "startsAt": notice.at.isoformat(),
            "endsAt": ends.isoformat(),
        }
