"""Recurring upgrades beside the API: asks again and again whether one is due."""

import asyncio
import logging

from orchestrator.service.recurring import RecurringUpgrades
from orchestrator.service.service import Service
from policies.model.errors import PenstockError

LOOK_SECONDS = 30.0
_log = logging.getLogger(__name__)


async def keep_upgrading(service: Service) -> None:
    """Start what is due for as long as this runs; several processes may, and each opening has one change."""
    upgrades = RecurringUpgrades(service)
    while True:
        try:
            await upgrades.start_due()
        except (PenstockError, OSError) as error:
            _log.warning("recurring upgrades are not looked at now: %s", error)
        except Exception:  # noqa: BLE001 - one look that fails does not end all later ones
            _log.exception("recurring upgrades are not looked at now")
        await asyncio.sleep(LOOK_SECONDS)
