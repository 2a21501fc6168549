"""Time zones: the rules by which a local time is an instant, from the package and never from the host.

Two hosts with different rules would open a window at different times; the version of the package says by
which rules an answer was made.
"""

import re
from functools import cache
from importlib import resources
from typing import Annotated
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]  # it is data, and a version
from pydantic import AfterValidator, Field

SITE = "site"
"""What a window or freeze says whose times are those of each gateway's own zone."""

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}")

RULES = tzdata.IANA_VERSION
"""Which edition of the rules is in use, such as 2026f."""


@cache
def zone(name: str) -> ZoneInfo:
    """Return the zone of that name.

    Raises:
        ValueError: There is none.
    """
    unknown = f"{name} is no time zone; write one like Europe/Berlin, or UTC"
    if len(name) > 64 or _ZONE.fullmatch(name) is None:  # noqa: PLR2004 - longer than any
        raise ValueError(unknown)
    file = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    try:
        with file.open("rb") as rules:
            return ZoneInfo.from_file(rules, key=name)
    except (OSError, ValueError) as error:
        raise ValueError(unknown) from error


@cache
def zone_names() -> tuple[str, ...]:
    """Return the names of all zones."""
    text = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return tuple(sorted(text.split()))


def _known(name: str) -> str:
    zone(name)
    return name


def _site_or_known(name: str) -> str:
    return name if name == SITE else _known(name)


ZoneName = Annotated[str, Field(max_length=64), AfterValidator(_known)]
"""A time zone by its name, such as `Europe/Berlin`."""

Place = Annotated[str, Field(max_length=64), AfterValidator(_site_or_known)]
"""`site` for each gateway's own zone, or a time zone by its name."""
