"""Fleets, states and releases of any shape, for the tests of the planner."""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

from policies.words.fleet import Fleet, Gateway, Limits, Slot
from policies.words.instance import GatewayState, Instance, InstanceState
from policies.words.plan import ReleaseRef
from policies.words.steering import Steering
from policies.words.word import digest_of

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
    return Gateway(
        name=name,
        group=group,
        domain=domain,
        capacity=capacity,
        addresses=(IPv4Address("192.0.2.1"),),
        slots=(
            Slot(name="a", port=4431, device="pa", pool4=IPv4Network("10.80.0.0/24")),
            Slot(name="b", port=4432, device="pb", pool4=IPv4Network("10.81.0.0/24")),
        ),
    )


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
