"""Folding: after a sink was away for long, what is old and needs nobody is told in one notice."""

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta

from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.model.notice import Notice, Occasion
from policies.notices.states import KINDS, NoticeState

OLD = timedelta(minutes=30)
FEW = 5
"""So many old ones are told one by one."""
MOST = 2_000
"""Old notices that are looked at together."""


def fold_old(ledger: Ledger, now: datetime | None = None) -> tuple[str, ...]:
    """Have one notice in place of many old ones at each sink that needs it; return the keys of these.

    A repeat after a kill at any line finds those that are left.

    Raises:
        Unavailable: The ledger does not answer.
    """
    now, made = now or datetime.now(UTC), []
    for sink, keys in ledger.old_infos(now - OLD, MOST).items():
        if len(keys) <= FEW:
            continue
        notices = [ledger.notice(key) for key in keys]
        states = Counter(one.state.replace("_", " ") for one in notices)
        fleets = sorted({one.fleet for one in notices})
        counted = ", ".join(f"{count} {state}" for state, count in states.most_common())
        where = fleets[0] if len(fleets) == 1 else f"{len(fleets)} fleets"
        digest = hashlib.sha256("\n".join([sink, *keys]).encode()).hexdigest()[:16]
        first, last = min(one.at for one in notices), max(one.at for one in notices)
        notice = Notice(
            key=f"earlier/{sink}/{digest}",
            fleet=fleets[0],
            state=NoticeState.EARLIER.value,
            level=KINDS[NoticeState.EARLIER].level,
            headline=f"{len(notices)} notices of {where} were not told while this was away: {counted}"[:500],
            sentences=(
                f"from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC",
                "penstock notice list shows each of them",
            ),
            at=now,
        )
        goes = {sink: (Occasion.SAID, now)}
        ledger.fold_notices(sink, keys, Addressed(notice, "earlier", waits=False, sinks=goes), now)
        made.append(notice.key)
    return tuple(made)
