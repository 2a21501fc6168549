"""Which of the kernel's flows carry nobody any more."""

from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from activities.drivers.daemon.port import Dialled, Session, Users
from activities.drivers.flows import Flow, Flows
from activities.drivers.steering import login_flows
from activities.drivers.steering.login_flows import FlowsSeen, LoginFlows, nobody

GATEWAY, HOME, PEER = (IPv4Address(address) for address in ("10.77.0.1", "10.88.0.1", "10.77.0.11"))
IKE = (Dialled("udp", 500), Dialled("udp", 4500))
SESSION = Session(
    id="1",
    remote_address=str(PEER),
    vpn_address="10.90.0.1",
    since=datetime(2026, 11, 27, tzinfo=UTC),
    transport="udp",
    source=(PEER, 4500),
)
SENT, GOODBYE = Flow(PEER, 4500, GATEWAY, 4500), Flow(HOME, 4500, PEER, 4500)
ASKS_A_NAME = Flow(HOME, 40000, IPv4Address("10.77.0.53"), 53)


@pytest.mark.parametrize(
    ("users", "forgotten"),
    [
        (Users(()), {SENT, GOODBYE}),
        (Users((), frozenset({PEER})), set()),
        (Users((SESSION,)), set()),
        (None, set()),
    ],
    ids=["nobody", "logs in", "has a session", "silent"],
)
def test_a_flow_that_an_instance_began_is_forgotten_once_it_carries_nobody_and_what_else_it_asks_never_is(
    users: Users | None, forgotten: set[Flow], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[Flow]()
    monkeypatch.setattr(login_flows, "forget", told.extend)
    flows = LoginFlows({"a": HOME}, IKE, nobody)
    flows.forget_stale(FlowsSeen({"a": Flows((SENT,), (GOODBYE, ASKS_A_NAME))}, {"a": users}))
    assert set(told) == forgotten


def test_what_a_slot_in_which_nothing_runs_has_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[Flow]()
    monkeypatch.setattr(login_flows, "forget", told.extend)
    LoginFlows({"a": HOME}, IKE, nobody).forget_stale(FlowsSeen({"a": Flows((), (GOODBYE,))}, {}))
    assert told == [GOODBYE]
