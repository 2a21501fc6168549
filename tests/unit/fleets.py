"""Fleets, states and releases of any shape, for the tests of the planner."""

import re
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from policies.model.errors import Refused
from policies.model.fleet import Fleet, Gateway, Limits, Slot
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.value import digest_of
from policies.planning.plan import plan as make_plan

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(f"manifest {version}".encode()),
        product="ocserv",
        version=version,
        executable=digest_of(f"executable {version}".encode()),
    )


OLD = release("1.3.0")
NEW = release("1.4.1")


def gateway(name: str, *, group: str = "main", domain: str = "main", capacity: int = 1000) -> Gateway:
    """A gateway whose address and pools follow from the number in its name, so that none is given twice."""
    number = int("".join(re.findall(r"[0-9]", name)) or "0")
    return Gateway(
        name=name,
        group=group,
        domain=domain,
        capacity=capacity,
        addresses=(IPv4Address("172.16.0.0") + number,),
        slots=tuple(
            Slot(name=slot, port=4431 + at, device=f"p{slot}", pool4=pool(2 * number + at))
            for at, slot in enumerate("ab")
        ),
    )


def pool(number: int) -> IPv4Network:
    return IPv4Network((int(IPv4Address("10.0.0.0")) + number * 512, 23))


def fleet(*gateways: Gateway, limits: Limits | None = None) -> Fleet:
    return Fleet(name="edge", product="ocserv", gateways=gateways, limits=limits or Limits())


def state(
    name: str,
    *,
    on: ReleaseRef = OLD,
    sessions: int | None = 10,
    serving: str | None = "a",
    trial: str | None = None,
    life: InstanceState = InstanceState.RUNNING,
    draining: int = 0,
    uncounted: bool = False,
) -> GatewayState:
    """What a gateway reports: slot a serves `on`; slot b drains some sessions, or a number nobody knows."""
    beside = InstanceState.RUNNING if draining or uncounted else InstanceState.STOPPED
    return GatewayState(
        gateway=name,
        instances=(
            Instance(slot="a", state=life, release=on.digest, executable=on.executable, sessions=sessions),
            Instance(slot="b", state=beside, sessions=None if uncounted else draining),
        ),
        steering=Steering(primed=True, serving=serving, trial=trial),
        epoch=0,
        observed_at=NOON,
    )


Facts = tuple[Fleet, dict[str, GatewayState], dict[str, ReleaseRef]]


def facts_of(count: int, limits: Limits | None = None, groups: int = 1) -> Facts:
    """A fleet whose gateways all run the old release with ten sessions; groups take turns."""
    members = [gateway(f"gw-{number}", group=f"group-{number % groups}") for number in range(1, count + 1)]
    names = [member.name for member in members]
    return fleet(*members, limits=limits), {n: state(n) for n in names}, dict.fromkeys(names, OLD)


def planned(facts: Facts, strategy: Strategy = Strategy.CANARY, to: ReleaseRef = NEW) -> Plan:
    upgraded, states, known_good = facts
    return make_plan(
        upgraded, states, known_good, to, strategy, gates=GatePolicy(), trust_policy=digest_of(b"trust")
    )


def some_plan(facts: Facts, strategy: Strategy) -> Plan | None:
    """The plan, or None when the planner refuses: a refusal keeps every promise about waves."""
    try:
        return planned(facts, strategy)
    except Refused:
        return None


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Fleets of every mood: silent, dead, uncountable, already new, without a way back."""
    steps = st.sampled_from([("1", "25%", "100%"), ("10%", "50%", "100%"), ("2", "3", "100%"), ("100%",)])
    limits = Limits(
        steps=draw(steps),
        holdout=draw(st.sampled_from(["0", "1", "2", "30%"])),
        canary_share=draw(st.sampled_from([5, 100])),
        failures=draw(st.sampled_from(["0%", "5%", "40%"])),
        switching=draw(st.integers(1, 4)),
        switching_per_domain=draw(st.integers(1, 2)),
        draining=draw(st.integers(1, 8)),
        headroom=draw(st.sampled_from([1.0, 1.2, 2.0])),
    )
    gateways, states, known_good = [], {}, {}
    for number in range(draw(st.integers(1, 16))):
        name = f"gw-{number}"
        gateways.append(
            gateway(
                name,
                group=draw(st.sampled_from(["east", "west"])),
                domain=draw(st.sampled_from(["rack-1", "rack-2", "rack-3"])),
                capacity=draw(st.sampled_from([20, 1000])),
            )
        )
        mood = draw(st.sampled_from(["old"] * 8 + ["silent", "new", "dead", "uncounted", "no way back"]))
        if mood != "silent":
            states[name] = state(
                name,
                on=NEW if mood == "new" else OLD,
                sessions=draw(st.integers(0, 20)),
                life=InstanceState.FAILED if mood == "dead" else InstanceState.RUNNING,
                uncounted=mood == "uncounted",
            )
        if mood != "no way back":
            known_good[name] = OLD
    return fleet(*gateways, limits=limits), states, known_good
