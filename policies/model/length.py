"""A length of time, as sentences say it."""

from datetime import timedelta


def length(time: timedelta) -> str:
    """Return a length of time in words: `9 h 12 m`, `3 d 2 h`, `40 s`."""
    seconds = max(0, int(time.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} m"
    return f"{minutes} m" if minutes else f"{seconds} s"
