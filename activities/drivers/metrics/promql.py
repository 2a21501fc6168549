"""PromQL: selectors with instances put in, so that no label value is ever read as a query."""

from collections.abc import Sequence
from datetime import timedelta

_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_SPECIAL = frozenset("\\.+*?()|[]{}^$-")


def matcher(instances: Sequence[str]) -> str:
    """Return the label matcher for exactly these instances, whatever characters they hold."""
    literal = "|".join("".join(f"\\{c}" if c in _SPECIAL else c for c in instance) for instance in instances)
    quoted = "".join(_ESCAPED.get(c, c) for c in literal)
    return f'instance=~"{quoted}"'


def raw_query(selector: str, instances: Sequence[str], lookback: timedelta) -> str:
    """Return the query for the raw samples of a selector over `lookback`."""
    return f"{selector.replace('$cohort', matcher(instances))}[{round(lookback.total_seconds() * 1000)}ms]"
