"""Which driver tells which sink of notices.yaml."""

from pathlib import Path

from activities.drivers.notices.alertmanager import Alertmanager
from activities.drivers.notices.pagerduty import Pagerduty
from activities.drivers.notices.port import Sink
from activities.drivers.notices.smtp import Mail
from activities.drivers.notices.text import Spell
from activities.drivers.notices.webhook import Webhook
from policies.model.notice_rules import (
    AlertmanagerSink,
    AnySink,
    ChatSink,
    PagerdutySink,
    SmtpSink,
    WebhookSink,
)


def sink_of(settings: AnySink, folder: Path, spell: Spell) -> Sink | None:
    """Return what tells this sink, None where it asks by itself; files are from that folder on."""
    match settings:
        case WebhookSink():
            return Webhook(settings, folder, spell)
        case SmtpSink():
            return Mail(settings, folder, spell)
        case PagerdutySink():
            return Pagerduty(settings, folder, spell)
        case AlertmanagerSink():
            return Alertmanager(settings, folder, spell)
        case ChatSink():
            return None
