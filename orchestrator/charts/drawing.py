"""What every chart is drawn with: texts that are never markup, paths, and round values of an axis."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from orchestrator.words.text import printable

TEXT, SMALL = 15, 13
"""Font sizes in units of the picture: on a screen of 390 pixels these are 11 and 10 pixels."""
LETTER = 0.56
"""Width of a letter by the size of its font, on the wide side, so that no text runs out of the picture."""


def picture(title: str, described: str, parts: Sequence[str], size: tuple[float, float]) -> str:
    """Return a picture of that width and height with what it is called and what it shows, in words."""
    width, height = size
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'role="img">'
        f"<title>{title}</title><desc>{described}</desc>{''.join(parts)}</svg>"
    )


def steps(low: float, high: float) -> Iterator[float]:
    """Yield three to six round values of the axis."""
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next((size * times for times in (1, 2, 2.5, 5) if size * times >= rough), size * 10)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step


def path(places: Sequence[tuple[float, float]]) -> str:
    """Return a line through these places, as a path says it."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def written(x: float, y: float, text: str, kind: str, size: int = TEXT, anchor: str = "start") -> str:
    """Return a text of that class at a place."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{plain(text)}</text>"
    )


def plain(said: str) -> str:
    """Return what somebody wrote as text that is never markup."""
    return escape(printable(said))
