"""PromQL: selectors with instances put in, so that no label value is ever read as a query."""

from collections.abc import Sequence
from datetime import timedelta

from policies.judge.tick import Offence

_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_SIGNS = {"above": ">", "below": "<", "equals": "=="}
_SPECIAL = frozenset("\\.+*?()|[]{}^$-")


def matcher(instances: Sequence[str]) -> str:
    """Return the label matcher for exactly these instances, whatever characters they hold."""
    literal = "|".join("".join(f"\\{c}" if c in _SPECIAL else c for c in instance) for instance in instances)
    quoted = "".join(_ESCAPED.get(c, c) for c in literal)
    return f'instance=~"{quoted}"'


def raw_query(selector: str, instances: Sequence[str], lookback: timedelta) -> str:
    """Return the query for the raw samples of a selector over `lookback`."""
    return f"{selector.replace('$cohort', matcher(instances))}[{round(lookback.total_seconds() * 1000)}ms]"


def offenders_query(offence: Offence) -> str:
    """Return the query whose series name, by their only label, the instances that may offend.

    A subquery of a second, since its answer has the one shape that is accepted. One more series has no label
    and the time of the evaluation as its value: an answer without it is no answer of "none".
    """
    selector, lookback = _everybody(offence.selector), f"[{round(offence.lookback.total_seconds() * 1000)}ms]"
    value = f"{selector} / {_everybody(offence.per)}" if offence.per else selector
    match offence.when:
        case "shown":
            found = selector
        case "changes":
            found = f"changes({selector}{lookback}) > 0"
        case "gone":
            found = f"last_over_time({selector}{lookback}) unless {selector}"
        case "above" | "below" | "equals":
            found = f"{value} {_SIGNS[offence.when]} {offence.value!r}"
    return f"(group by (instance) ({found}) or vector(time()))[1s:1s]"


def over_time(expression: str, lookback: timedelta, step: timedelta) -> str:
    """Return the query for what an expression was at each step: a subquery has the shape of raw samples."""
    back, each = round(lookback.total_seconds() * 1000), round(step.total_seconds() * 1000)
    return f"({expression})[{back}ms:{each}ms]"


def _everybody(selector: str) -> str:
    return selector.replace("$cohort", 'instance!=""')
