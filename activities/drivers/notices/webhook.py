"""Notices as CloudEvents, posted and signed: HMAC-SHA256 over the moment and the body.

`Penstock-Timestamp` is when it was sent, in seconds of the epoch; `Penstock-Signature` is `v1=` and the hex
of the HMAC over the timestamp, a full stop and the body. A receiver refuses what is older than five minutes
and what it cannot verify, and knows a repeat by the event's `id`.
"""

import hashlib
import hmac
import json
import time
from pathlib import Path

from activities.drivers.notices.port import ONCE, Sink
from activities.drivers.notices.posting import post, trusted
from activities.drivers.notices.text import Spell
from activities.drivers.private_files import secret_line
from policies.model.notice import Delivery
from policies.model.notice_rules import WebhookSink

LEAST_KEY = 32
"""Characters of a key that signs."""


class Webhook(Sink):
    """One address that CloudEvents are posted to."""

    repeats_after = None
    occasions = ONCE

    def __init__(self, settings: WebhookSink, folder: Path, spell: Spell) -> None:
        """Take the settings; files are from that folder on."""
        self._settings = settings
        self._folder = folder
        self._spell = spell

    def ready(self) -> None:
        """Read the key and the authorities."""
        self._key()
        trusted(self._settings, self._folder)

    async def tell(self, delivery: Delivery) -> str:
        """Post the notice as one event."""
        body = json.dumps(_event(delivery, self._spell), separators=(",", ":")).encode()
        key = self._key()
        at = str(int(time.time()))
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "Penstock-Timestamp": at,
            "Penstock-Signature": f"v1={signature(key, at, body)}",
        }
        return await post(self._settings, self._folder, body, headers, secrets=[key])

    def _key(self) -> str:
        return secret_line(self._folder / self._settings.key_file, "the key", LEAST_KEY)


def signature(key: str, at: str, body: bytes) -> str:
    """Return what proves that whoever has the key sent this body at that moment."""
    return hmac.new(key.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def _event(delivery: Delivery, spell: Spell) -> dict[str, object]:
    notice = delivery.notice
    return {
        "specversion": "1.0",
        "id": notice.key,
        "source": f"penstock/{notice.fleet}",
        "type": f"penstock.notice.{notice.state}",
        "subject": notice.change or notice.gateway or notice.fleet,
        "time": notice.at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            **notice.model_dump(mode="json", exclude={"offers"}),
            "can_do": [spell(offer) for offer in notice.offers],
            "settles": [one.key for one in delivery.resolved],
        },
    }
