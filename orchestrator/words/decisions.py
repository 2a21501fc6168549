"""What the gates of a change decided, by which rules, and what would have changed it, as sentences."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.text import printable
from orchestrator.words.times import moment, seconds_of

Json = Mapping[str, Any]

ACTIONS = {
    "promote": "promote",
    "continue": "go on watching",
    "extend": "watch longer",
    "hold": "hold",
    "hold_for_human": "ask a person",
    "roll_back": "roll back",
}
"""How people say what a decision does."""
VERDICTS = {
    "healthy": "proven healthy",
    "unhealthy": "proven worse",
    "hard": "failed by a hard sign",
    "conflicting": "contradicted by control itself",
    "metrics_unavailable": "blind",
    "not_enough_data": "not proven either way",
}
"""How people say a verdict."""
_CAUSES = {"rollback": "rolls back", "hold": "holds"}
_FIRES = {
    "above": "above {value:g}",
    "below": "below {value:g}",
    "equals": "equal to {value:g}",
    "changes": "changed by more than {value:g}",
    "gone": "gone",
}


def decision_name(change: str, number: int) -> str:
    """Return how a decision is written where one is asked for."""
    return f"{change}#{number}"


def decision_row(change: str, row: Json) -> tuple[str, str, str, str, str, str]:
    """Return a decision's line in a list: its name, when, in which wave, what to do, the verdict and why."""
    return (
        decision_name(change, row["number"]),
        moment(row["at"]),
        wave(row["wave"]),
        ACTIONS[row["action"]],
        VERDICTS[row["verdict"]],
        printable(row["reason"]),
    )


def wave(number: int) -> str:
    """Return how people call a wave; after the last one promoted gateways are watched on."""
    return f"wave {number}" if number else "after the last wave"


def decision_lines(found: Json) -> list[str]:
    """Return what one decision was, its numbers and rules, and what would have changed it."""
    decision, rules = found["decision"], found["rules"]
    name = decision_name(found["change"], found["number"])
    lines = [
        f"{name}  {moment(found['at'])}  {wave(found['wave'])}",
        f" Decision    {ACTIONS[decision['action']]}: {decision['reason']}",
        *evidence_lines(decision),
    ]
    if rules is None:
        lines.append(" Rules       the plan of this change, which would say them, has no gates in the ledger")
    else:
        said = {reading["gate"] for reading in decision["readings"]}
        lines += [
            f" Rule        {rule_sentence(gate, decision)}" for gate in rules["gates"] if gate["id"] in said
        ]
        lines.append(f" Window      {window_sentence(rules['window'])}")
        lines.append(f" Errors      {budget_sentence(rules['budget'])}")
    return [printable(line) for line in lines]


def vote_lines(change: Json) -> list[str]:
    """Return what a vote to promote is for: the verdict on the wave, and the gates that do not pass it."""
    decision = change["decision"]
    against = [one for one in decision["readings"] if one["verdict"] != "healthy"]
    verdict = f"{VERDICTS[decision['verdict']]}: {decision['reason']}"
    head = f"{change['rollout']} to {change['version']}, {wave(change['wave'])}: {verdict}"
    return [printable(line) for line in (head, *(f"  {reading_line(one)}" for one in against))]


def evidence_lines(decision: Json) -> list[str]:
    """Return what every gate said, who failed, and what would have changed it."""
    return [
        *(f" Gate        {reading_line(one)}" for one in decision["readings"]),
        *(f" Failed      {name} by itself{_own(decision, name)}" for name in decision["failed"]),
        *(f" Rebooted    {name}" for name in decision["rebooted"]),
        *(f" Absent      {name}{_own(decision, name)}" for name in decision.get("absent", ())),
        *(f" Otherwise   {line}" for line in otherwise_sentences(decision)),
    ]


def _own(decision: Json, name: str) -> str:
    """Return the reason of one gateway, as it follows its name."""
    why = decision.get("own", {}).get(name)
    return f": {why}" if why else ""


def reading_line(reading: Json) -> str:
    """Return what one gate has said, against what, and the numbers behind it."""
    against = f" against {reading['against']}" if reading["against"] else ""
    numbers = ", ".join(f"{name} {value:g}" for name, value in sorted(reading["numbers"].items()))
    behind = f" ({numbers})" if numbers else ""
    return f"{reading['gate']}{against}: {VERDICTS[reading['verdict']]}: {reading['reason']}{behind}"


def otherwise_sentences(decision: Json) -> list[str]:
    """Return what would have changed a decision; a sentence that says so where that is not known."""
    readings = {reading["gate"]: reading for reading in decision["readings"]}
    said = [otherwise_sentence(one, readings.get(one["gate"])) for one in decision.get("otherwise", ())]
    said += [line for one in decision["readings"] if (line := _level_sentence(one))]
    if not said and decision["readings"]:
        said.append("no difference in what was counted most recently is known to change it")
    return said


def otherwise_sentence(one: Json, reading: Json | None) -> str:
    """Return the least that would have changed what one gate has said."""
    gate, count = one["gate"], one["count"]
    if one["differing"] == "fewer_failed":
        fewer = _plural(count, "gateway")
        return f"{gate}: with {fewer} fewer failing, they had failed by themselves and nothing rolled back"
    then, less = VERDICTS[one["then"]], f"{count - 1} would have changed nothing"
    counted = f" of the {reading['numbers'].get('canary_bad', 0):g}" if reading is not None else ""
    if one["differing"] == "fewer_bad":
        return f"{gate}: had the newest {count}{counted} bad events been good: {then}; {less}"
    if one["differing"] == "more_bad":
        return f"{gate}: had {count} more of the newest events been bad: {then}; {less}"
    within = f", about {_length(one['within'])} more at the rate of the last ones" if one["within"] else ""
    return f"{gate}: with {_plural(count, 'good event')} more{within}: {then}; {less}"


def _level_sentence(reading: Json) -> str:
    """Return what would have changed the verdict of a gate that compares levels; empty for others."""
    numbers = reading["numbers"]
    if "allowed" not in numbers or "ratio" not in numbers:
        return ""
    if reading["verdict"] == "unhealthy":
        return (
            f"{reading['gate']}: at {numbers['allowed']:g} times control's median or less: no reason to hold"
        )
    return f"{reading['gate']}: beyond {numbers['allowed']:g} times control's median: proven worse"


def rule_sentence(gate: Json, decision: Json) -> str:
    """Return the rule of one gate with its limits, as people say it."""
    reading = next((one for one in decision["readings"] if one["gate"] == gate["id"]), None)
    causes = _CAUSES[gate["action"]]
    if "margin" in gate:
        return f"{gate['id']} {causes} when {_worse(gate, reading)}{_healthy(gate)}"
    return f"{gate['id']} {causes} when {_SENTENCES[gate['kind']](gate)}"


def _worse(gate: Json, reading: Json | None) -> str:
    margin = gate["margin"]
    if reading is not None and reading["against"] in {"baseline", "guard"}:
        limit = reading["numbers"].get("limit", gate["worst"])
        return f"more than {limit:.1%} of its events are proven bad, for there is nobody to compare with"
    return (
        f"its events are proven worse than control's by {_points(margin['delta'])} "
        f"({margin['odds_floor']:g} times the odds at least), and in the last {_length(margin['over'])} "
        f"by {_points(margin['min_excess'])} with {_plural(margin['min_bad'], 'bad event')} "
        f"in {_plural(margin['min_ticks'], 'scrape')}{_errors(reading)}"
    )


def _errors(reading: Json | None) -> str:
    """Return the chances of being wrong that the gate's own evidence had to stay below."""
    numbers = reading["numbers"] if reading is not None else {}
    equal, margin = numbers.get("evidence_worse_needed"), numbers.get("evidence_margin_needed")
    if not equal or not margin:
        return ""
    return f"; wrong of one no worse in {1 / equal:.2g} of changes, of one at the margin in {1 / margin:.2g}"


def _healthy(gate: Json) -> str:
    health = gate["health"]
    if health is None:
        return ""
    needed = ", which a promotion needs" if gate["required"] else ""
    return (
        f"; healthy when proven less than {_points(health['delta'])} worse, wrong in {health['error']:g} "
        f"of cases{needed}"
    )


def _of_gauge(gate: Json) -> str:
    floor = f" and is above {gate['floor']:g}" if gate["floor"] else ""
    hard = f"; beyond {gate['ratio_hard']:g} times it rolls back" if gate["ratio_hard"] else ""
    over = _length(gate["over"])
    return f"the worst canary has more than {gate['ratio']:g} times control's median for {over}{floor}{hard}"


def _of_slope(gate: Json) -> str:
    return (
        f"a canary grows by more than {gate['floor_per_minute']:g} a minute, more than any control and three "
        f"times the median one, over {_length(gate['min_span'])}"
    )


def _of_hard(gate: Json) -> str:
    fires = _FIRES[gate["fires"]["when"]].format(value=gate["fires"]["value"])
    held = f" for {_length(gate['held'])}" if seconds_of(gate["held"]) else ""
    confirmed = ", and a probe confirms it" if gate["confirm"] else ""
    return (
        f"{gate['value']} is {fires}{held} on more gateways than may fail by themselves, and not on control"
        f"{confirmed}"
    )


def _of_alerts(gate: Json) -> str:
    return f"an alert of {gate['value']} fires for the canary and not for control"


def _of_tickets(gate: Json) -> str:
    return f"a ticket of severity {' or '.join(gate['severities'])} is open about the canary or the fleet"


_SENTENCES = {
    "gauge_ratio": _of_gauge,
    "slope": _of_slope,
    "hard": _of_hard,
    "alerts": _of_alerts,
    "tickets": _of_tickets,
}


def window_sentence(window: Json) -> str:
    """Return how long a wave is watched."""
    longer = f", then {_length(window['extension'])} at a time" if seconds_of(window["extension"]) else ""
    return (
        f"promoted after {_length(window['minimum'])} at the soonest, watched for "
        f"{_length(window['nominal'])}{longer}; after {_length(window['cap'])} a person is asked"
    )


def budget_sentence(budget: Json) -> str:
    """Return how often all gates of a change together may be wrong."""
    waves = f", shared out over {_plural(budget['waves'], 'wave')}" if budget["waves"] > 1 else ""
    return (
        f"of releases no worse than control {budget['alpha_equal']:g} may be rolled back, of those exactly "
        f"at the margin {budget['alpha_margin']:g}{waves}"
    )


def _points(share: float) -> str:
    return f"{100 * share:g} points"


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _length(duration: str) -> str:
    seconds = seconds_of(duration)
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - two minutes
