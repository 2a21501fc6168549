"""What a plan would do, and what its gates can prove."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.offers import all_spelled
from orchestrator.words.text import printable
from orchestrator.words.times import seconds_of

SHOWN_GATEWAYS = 10
SHOWN_CHANGES = 12
Json = Mapping[str, Any]


def plan_lines(plan: Json) -> list[str]:
    """Return what a plan would do, to whom, for how long, and what starts exactly it."""
    strategy = f"  strategy {plan['strategy'].replace('_', '-')}" if plan["strategy"] else ""
    leads = "to " if plan["release"] else ""
    lines = [f"PLAN {plan['fleet']} {leads}{plan['version']}{strategy}  digest {plan['digest'][7:19]}"]
    lines += [f" WARNING     {warning}" for warning in plan["warnings"]]
    lines += [f" {sentence}" for sentence in plan["sentences"]]
    lines += [f" {label:10}  {said}" for label, said in plan_facts(plan)]
    lines += [f" Changes     {line}" for line in changelog_lines(plan["changelog"], plan["version"])]
    lines += [f" Approval    {line}" for line in approval_lines(plan["approved"])]
    if plan["offers"]:
        lines.append(f"Start: {all_spelled(plan['offers'])}")
    return [printable(line) for line in lines]


def plan_facts(plan: Json) -> list[tuple[str, str]]:
    """Return what a plan rests on, each with its label: who is left out, what can be proven, the way back."""
    facts = [
        ("Left alone", f"{one['gateway']}: {one['reason']}") for one in plan["left_alone"][:SHOWN_GATEWAYS]
    ]
    facts += [("Gate", prediction_line(one)) for one in plan["predictions"]]
    facts += [("Proof", proof["sentence"]) for proof in plan["proofs"]]
    facts += [("Window", plan["window"])] if plan.get("window") else []
    back = ", ".join(f"{version} on {count}" for version, count in plan["known_good"].items())
    facts += [("Known-good", f"{back} gateways")] if back else []
    return facts + [("Signed by", signer) for signer in plan["signers"]]


def changelog_lines(changelog: str, version: str) -> list[str]:
    """Return the beginning of what a release's signers say that it changes, and where the rest is."""
    lines = [line.rstrip() for line in changelog.splitlines() if line.strip()]
    if len(lines) > SHOWN_CHANGES:
        rest = f"{len(lines) - SHOWN_CHANGES} more lines: penstock release show {version}"
        lines = [*lines[:SHOWN_CHANGES], rest]
    return lines


def approval_lines(approved: Json) -> list[str]:
    """Return how many people must approve a plan, why, and who has; nothing where it needs nobody."""
    wanted = approved["required"]
    if not wanted["count"]:
        return []
    people = ", ".join(approved["people"]) or "nobody yet"
    return [f"{wanted['count']} needed who do not start it: {wanted['reason']}; approved by {people}"]


def prediction_line(prediction: Json) -> str:
    """Return in one sentence when a gate will have decided, or what to change so that it can."""
    rate = f"{prediction['events_per_minute']:.0f} logins a minute"
    if prediction["healthy_after"] is None or not prediction["in_time"]:
        return f"{prediction['gate']} cannot decide in time at {rate}: {prediction['advice']}"
    seconds = seconds_of(prediction["healthy_after"])
    return f"{prediction['gate']} is proven healthy after about {seconds:.0f} s at {rate} (median)"
