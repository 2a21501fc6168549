"""Windows and freezes as rows that people read, on the terminal and on the page."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.times import seconds_of

Json = Mapping[str, Any]


def window_rows(found: Json) -> list[tuple[str, str, str, str]]:
    """Return each window's name, its days, when it opens, and for how long."""
    return [
        (one["name"], one["rrule"], f"{one['start'][:5]} {one['tz']}", _hours(one["duration"]))
        for one in found["windows"]
    ]


def opening_rows(found: Json) -> list[tuple[str, ...]]:
    """Return when it opens and closes next, where the fleet is and in UTC."""
    return [tuple(one["sentence"].split(" to ")) for one in found["openings"]]


def freeze_rows(found: Json) -> list[tuple[str, str, str, str]]:
    """Return each freeze's name, its first time, and who added it."""
    rows = []
    for one in found["freezes"]:
        by = f"{one['person']}: {one['reason']}" if one["person"] else "the fleet's file"
        more = f", and {one['count'] - 1} more times" if one["count"] > 1 else ""
        if not one["spans"]:
            rows.append((one["name"], "", "", one["reason"] or f"{by}, no time to come"))
            continue
        first = one["spans"][0]
        rows.append((one["name"], first["begins"], f"{first['ends']} {first['tz']}{more}", by))
    return rows


def _hours(duration: str) -> str:
    minutes = round(seconds_of(duration) / 60)
    return f"{minutes // 60} h {minutes % 60} m"
