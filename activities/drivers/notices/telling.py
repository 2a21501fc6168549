"""Telling: what is so of every sink, whatever its driver does: it is told what it takes, and in time.

A driver may be wrong in ways that nobody foresaw. That is one notice's failure, and is said as one: nothing
behind it waits, and no words of it are passed on, since they may have a secret in them.
"""

import asyncio
import logging
import traceback
from datetime import timedelta

from activities.drivers.notices.port import DEADLINE, Sink, Undelivered
from policies.model.errors import BadInput, PenstockError
from policies.model.notice import Delivery

GRACE = timedelta(seconds=2)
"""How much later than its own deadline a driver is given up."""

_log = logging.getLogger(__name__)


async def told(sink: Sink, delivery: Delivery, within: timedelta = DEADLINE + GRACE) -> str:
    """Tell the sink, unless the occasion is none of its own; return what its receiver answered, in a line.

    Args:
        sink: Whom.
        delivery: Of what, and why now.
        within: How long that may take for the notice, and as long again for each that it settles.

    Raises:
        Undelivered: It did not take it, or not in time, or failed by itself.
        BadInput: A file of the sink is not as it must be.
    """
    if delivery.occasion not in sink.occasions:
        return f"it is not told of what is {delivery.occasion.value}"
    seconds = within.total_seconds() * (1 + len(delivery.resolved))
    try:
        async with asyncio.timeout(seconds):
            return await sink.tell(delivery)
    except (Undelivered, BadInput):
        raise
    except TimeoutError as error:
        raise Undelivered(f"it did not answer within {seconds:g} s") from error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this notice's alone
        raise failure_of(error) from None


def failure_of(error: Exception) -> Undelivered | BadInput:
    """Return what a driver has raised as what it should have raised, and say in the log where that was."""
    if isinstance(error, Undelivered | BadInput):
        return error
    if isinstance(error, PenstockError):
        return Undelivered(str(error), reached=True)
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a sink failed by a %s, whose words are not said here:\n%s", type(error).__name__, where)
    sentence = f"the sink itself failed, by a {type(error).__name__}; the log says where: please report it"
    return Undelivered(sentence, reached=True)
