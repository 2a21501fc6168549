"""Spans as values: which trace something belongs to, and what is told of it.

Nothing here needs a library of tracing. A trace has its id from the first run of its change, and a workflow's
span has its id from its run, so that whoever replays, continues as new or takes over after a kill tells the
same spans, and steps can name the span that they belong to long before it ends and is told. What the engine
carries is W3C Trace Context (traceparent) and nothing else: random-looking numbers, no names.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.common.v1 import Payload

from policies.model.operation import Operation

HEADER = "_tracer-data"
"""Under which temporalio's own interceptors carry it too, so that both understand each other."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NAMED = re.compile(r"^(?:change|drain)/(?P<fleet>[^/]+)(?:/(?P<change>[^/]+)/|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which trace something is: the ids of the trace and of the span that it belongs to."""

    trace: int
    span: int

    def header(self) -> Payload:
        """Return it as the engine carries it."""
        said = {"traceparent": f"00-{self.trace:032x}-{self.span:016x}-01"}
        return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(said).encode())


@dataclass(frozen=True, slots=True)
class Span:
    """Something that has ended; times are nanoseconds since 1970.

    `failed` is the kind of an error and never its words, in which users' names and addresses may be.
    """

    name: str
    place: Place
    parent: int | None
    began: int
    ended: int
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    failed: str = ""


Tell = Callable[[Span], None]
"""Takes a span and returns at once, whatever becomes of it."""


def place_in(headers: Mapping[str, Payload]) -> Place | None:
    """Return what a header says; None where there is none that can be read, whoever wrote it."""
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        found = _TRACEPARENT.fullmatch(json.loads(payload.data)["traceparent"])
    except (ValueError, KeyError, TypeError):
        return None
    return Place(int(found[1], 16), int(found[2], 16)) if found is not None else None


def trace_of(run: str) -> int:
    """Return the id of the trace of what began with this run; the same whoever asks."""
    return _number(f"penstock trace {run}", 16)


def beginning_of(run: str) -> Place:
    """Return the place of the request that a change began with."""
    return Place(trace_of(run), _number(f"penstock request {run}", 8))


def span_of(run: str) -> int:
    """Return the id of the span of one run of a workflow."""
    return _number(f"penstock run {run}", 8)


def new_span() -> int:
    """Return the id of a span that nobody else has to know."""
    return secrets.randbits(64) or 1


def attributes_of(identity: str, arguments: Iterable[Any]) -> dict[str, str | int]:
    """Return what is told of a step or workflow: names of changes, fleets and gateways, numbers of waves.

    These fields have patterns of names; nothing else of an order is looked at.
    """
    found: dict[str, str | int] = {"penstock.workflow": identity}
    if named := _NAMED.match(identity):
        found |= {f"penstock.{key}": value for key, value in named.groupdict().items() if value}
    for argument in arguments:
        operation = getattr(argument, "operation", argument)
        if isinstance(operation, Operation):
            found |= {"penstock.change": operation.rollout, "penstock.gateway": operation.gateway}
        order = getattr(argument, "order", argument)
        for key, name in (("fleet", "fleet"), ("change", "change"), ("rollout", "change")):
            if isinstance(value := getattr(order, key, None), str) and value:
                found.setdefault(f"penstock.{name}", value)
        found |= _gateway_in(order)
        if isinstance(wave := getattr(order, "wave", None), int):
            found["penstock.wave"] = wave
    return found


def _gateway_in(order: Any) -> dict[str, str | int]:
    gateway = getattr(order, "gateway", None)
    if isinstance(gateway, str):
        return {"penstock.gateway": gateway}
    found = {"gateway": getattr(gateway, "name", None), "fleet": getattr(gateway, "fleet", None)}
    return {f"penstock.{key}": value for key, value in found.items() if isinstance(value, str)}


def _number(said: str, length: int) -> int:
    """Return so many bytes as a number that is not zero, which no id may be."""
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:length]) or 1
