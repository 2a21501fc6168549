"""The nine rights that the driver has to have in its cluster, and which of them it lacks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Right(NamedTuple):
    """One verb on one kind of objects; `group` is empty for the oldest kinds."""

    verb: str
    kind: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.kind}{f'.{self.group}' if self.group else ''}"


LIST_NODES = Right("list", "nodes")
PATCH_NODE = Right("patch", "nodes")
LIST_PODS = Right("list", "pods")
GET_DAEMONSET = Right("get", "daemonsets", "apps")
PATCH_DAEMONSET = Right("patch", "daemonsets", "apps")
CREATE_EVENT = Right("create", "events")
GET_LEASE = Right("get", "leases", "coordination.k8s.io")
CREATE_LEASE = Right("create", "leases", "coordination.k8s.io")
UPDATE_LEASE = Right("update", "leases", "coordination.k8s.io")

NINE = (
    *(LIST_NODES, PATCH_NODE, LIST_PODS, GET_DAEMONSET, PATCH_DAEMONSET),
    *(CREATE_EVENT, GET_LEASE, CREATE_LEASE, UPDATE_LEASE),
)
"""All that is needed; anything more is refused nowhere, and used nowhere."""

REVIEW = Right("create", "selfsubjectrulesreviews", "authorization.k8s.io")
"""The question itself, which every cluster lets everybody ask."""


class Lacking(NamedTuple):
    """A right that is not there; `names` are the objects it is missing for, none where it is for all."""

    right: Right
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.right} {' and '.join(self.names)}".rstrip()


def lacking(review: Mapping[str, Any], names: Mapping[Right, Sequence[str]]) -> tuple[Lacking, ...]:
    """Return which of the nine the answer to a SelfSubjectRulesReview leaves out.

    `names` are those of the objects that a right is used on, where it may be given for these alone. An
    answer that says of itself that it is incomplete, as those of webhooks are, leaves nothing out.
    """
    status = review.get("status") or {}
    if status.get("incomplete"):
        return ()
    rules = [rule for rule in status.get("resourceRules") or () if isinstance(rule, dict)]
    return tuple(_lacking(rules, names))


def _lacking(rules: Sequence[Any], names: Mapping[Right, Sequence[str]]) -> Iterator[Lacking]:
    for right in NINE:
        allowing = [rule for rule in rules if _allows(rule, right)]
        if any(not rule.get("resourceNames") for rule in allowing):
            continue
        named = {name for rule in allowing for name in rule["resourceNames"]}
        missing = tuple(name for name in names.get(right, ()) if name not in named)
        if missing or not named or right not in names:
            yield Lacking(right, missing if named else ())


def _allows(rule: Mapping[str, Any], right: Right) -> bool:
    asked = (("verbs", right.verb), ("resources", right.kind), ("apiGroups", right.group))
    return all(_holds(rule.get(key) or (), value) for key, value in asked)


def _holds(said: Iterable[str], value: str) -> bool:
    return bool({value, "*"} & set(said))
