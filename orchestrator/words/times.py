"""Times as people read them, from the form in which the API answers them."""

import re
from datetime import datetime

_ISO = re.compile(r"P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9.]+)S)?)?")


def moment(at: str | None) -> str:
    """Return a time as people read it here, with its zone; empty for none."""
    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""


def span(began: str, ended: str | None) -> str:
    """Return from when to when as people read it here, with the zone; the day is said once if it is one."""
    if ended is None:
        return f"since {moment(began)}"
    start, stop = moment(began).split(" "), moment(ended).split(" ")
    if start[0] == stop[0] and start[2] == stop[2]:
        return f"{start[0]} {start[1]} to {stop[1]} {stop[2]}"
    return f"{' '.join(start)} to {' '.join(stop)}"


def seconds_of(duration: str) -> float:
    """Return an ISO 8601 duration, as the API answers it, in seconds."""
    parts = _ISO.fullmatch(duration)
    if parts is None:
        return 0.0
    days, hours, minutes, rest = (float(part or 0) for part in parts.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + rest
