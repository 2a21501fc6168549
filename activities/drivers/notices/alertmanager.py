"""Notices as alerts in an Alertmanager, by version 2 of its API: what waits fires until it is settled."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.drivers.notices.port import Sink
from activities.drivers.notices.posting import post, trusted
from activities.drivers.notices.text import Spell, headline, lines
from activities.drivers.private_files import secret_line
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

    def ready(self) -> None:
        """Read the token, if there is one, and the authorities."""
        self._token()
        trusted(self._settings, self._folder)

    async def tell(self, delivery: Delivery) -> str:
        """Have the notice fire, and what it settles be resolved."""
        now = datetime.now(UTC)
        alerts = [self._alert(one, now) for one in delivery.resolved]
        if delivery.occasion is not Occasion.SETTLED:
            lasts = LASTS if delivery.waits else SHORT
            alerts.append(self._alert(delivery.notice, delivery.settled or now + lasts))
        if not alerts:
            return "nothing is left to resolve"
        headers, secrets = {"Content-Type": "application/json"}, list[str]()
        if token := self._token():
            secrets.append(token)
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(alerts).encode()
        return await post(
            self._settings, self._folder, body, headers, secrets=secrets, under="/api/v2/alerts"
        )

    def _token(self) -> str | None:
        file = self._settings.token_file
        return secret_line(self._folder / file, "the token") if file is not None else None

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
