"""Every role against every route: who gets past the door, and who hears who may."""

from datetime import timedelta

import httpx
import pytest

from orchestrator.api.limits import PER_MINUTE, Kind
from orchestrator.store.ledger import Ledger
from orchestrator.store.tokens import OF_MACHINES
from policies.access import ALLOWED, OF_PEOPLE, Action, action_of, may
from policies.model.command import CommandKind
from policies.model.people import Caller, Grants, Role, Via
from policies.model.value import digest_of
from tests.service.conftest import FLEETS
from tests.service.test_api import added
from tests.service.test_every_request import OPERATIONS

WHY: dict[str, object] = {"reason": "a table of everything"}
DIGEST = digest_of(b"release")
NAMES = {
    "fleet": "edge",
    "gateway": "edge-1",
    "name": "abcd",
    "release": "1.3.0",
    "plan": "0" * 12,
    "change": "edge-99",
    "number": "1",
    "sink": "chat",
}
FILE = {"path": "fleet.yaml", "text": FLEETS.format(name="edge")}
WANTED = f"kind: Upgrade\nfleet: edge\nrelease: {DIGEST}\nreason: CVE\nstart: on-approval\n"
UPGRADE = {"path": "upgrade.yaml", "text": WANTED}
CRASH = {"name": "crash", "began": "2024-11-24T02:00:00Z", "budget": 30.0}
SAID: dict[str, object] = {
    "workspace": "chat",
    "user": "@nobody:chat",
    "channel": "!room:chat",
    "message": "$one",
    "text": "!penstock status edge",
    "at": "2024-11-24T02:00:00Z",
}
ROUTES: dict[str, tuple[Action | None, dict[str, object]]] = {
    "GET /v1/login": (None, {}),
    "POST /v1/login/links": (None, {}),
    "POST /v1/fleets/{fleet}/complaints": (None, {}),
    "POST /v1/fleets/{fleet}/tickets": (None, {}),
    "GET /v1/fleets/{fleet}/handovers": (Action.READ, {}),
    "POST /v1/fleets/{fleet}/handovers": (None, {"to": "ben"}),
    "POST /v1/fleets/{fleet}/handovers/answer": (None, {"end": "accepted"}),
    "GET /v1/whoami": (None, {}),
    "GET /v1/doctor": (None, {}),
    "GET /v1/fleets": (None, {}),
    "GET /v1/fleets/{fleet}": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/changes": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/gateways": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/gateways/{gateway}/path": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/certificates": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/drift": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/rollback": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/drains": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/traffic": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/events": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/snapshots": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/snapshots/{name}": (Action.READ_SNAPSHOTS, {}),
    "POST /v1/fleets/{fleet}/commands": (Action.STOP, WHY | {"kind": "hold"}),
    "POST /v1/fleets/{fleet}/gateways/quarantine": (Action.QUARANTINE, WHY | {"gateways": ["edge-1"]}),
    "POST /v1/fleets/{fleet}/gateways/return": (Action.QUARANTINE, WHY | {"gateways": ["edge-1"]}),
    "POST /v1/fleets/{fleet}/gateways/{gateway}/enrol": (Action.ENROL, {}),
    "POST /v1/fleets/{fleet}/gateways/{gateway}/revoke": (Action.REVOKE, WHY),
    "POST /v1/fleets/{fleet}/drains/extend": (Action.DRAIN, WHY | {"by_seconds": 60}),
    "POST /v1/fleets/{fleet}/drains/end": (Action.DRAIN, WHY),
    "POST /v1/fleets/{fleet}/install": (Action.START, {"to": "1.3.0"}),
    "POST /v1/fleets/{fleet}/credentials/reload": (Action.RELOAD, WHY),
    "POST /v1/fleets/{fleet}/settings": (Action.START, WHY),
    "POST /v1/fleets/{fleet}/settings/plan": (Action.PLAN, {}),
    "POST /v1/fleets/{fleet}/adopt": (Action.START, {}),
    "POST /v1/fleets/{fleet}/hand-back": (Action.START, WHY | {"gateways": ["edge-1"]}),
    "GET /v1/fleets/{fleet}/adoptable": (Action.START, {}),
    "POST /v1/fleets/{fleet}/rebuild": (Action.ADMINISTER, WHY),
    "POST /v1/fleets/{fleet}/desired/diff": (Action.READ, {}),
    "POST /v1/fleets/{fleet}/description": (Action.ADMINISTER, WHY | {"file": FILE}),
    "POST /v1/fleets/{fleet}/upgrade": (Action.START, {"file": UPGRADE}),
    "POST /v1/fleets/{fleet}/unpin": (Action.UNPIN, WHY),
    "GET /v1/fleets/{fleet}/windows": (Action.READ, {}),
    "GET /v1/fleets/{fleet}/windows/check": (Action.READ, {}),
    "POST /v1/fleets/{fleet}/windows/freezes": (
        Action.FREEZE,
        WHY | {"name": "x", "begins": "2030-01-01T00:00", "ends": "2030-01-02T00:00", "tz": "UTC"},
    ),
    "POST /v1/fleets/{fleet}/windows/freezes/import": (
        Action.FREEZE,
        WHY | {"name": "x", "calendar": "none", "tz": "UTC"},
    ),
    "POST /v1/fleets/{fleet}/windows/freezes/{name}/remove": (Action.FREEZE, WHY),
    "POST /v1/plans": (Action.PLAN, {"fleet": "edge", "to": "1.3.0"}),
    "GET /v1/plans/{plan}": (None, {}),
    "POST /v1/plans/{plan}/approvals": (None, WHY),
    "GET /v1/changes/{change}": (None, {}),
    "GET /v1/changes/{change}/events": (None, {}),
    "GET /v1/changes/{change}/decisions": (None, {}),
    "GET /v1/changes/{change}/decisions/{number}": (None, {}),
    "GET /v1/changes/{change}/report": (None, {}),
    "POST /v1/changes/{change}/cause": (None, {"text": "a table of everything"}),
    "POST /v1/changes/{change}/follow-ups": (
        None,
        {"text": "a table of everything", "owner": "ada", "due": "2030-12-31"},
    ),
    "POST /v1/changes/{change}/follow-ups/{number}/done": (None, {}),
    "GET /v1/follow-ups": (None, {}),
    "GET /v1/drills": (None, {}),
    "POST /v1/drills": (Action.DRILL, CRASH),
    "POST /v1/changes": (Action.START, WHY | {"fleet": "edge", "to": "1.3.0"}),
    "GET /v1/notices": (None, {}),
    "GET /v1/notices/outbox/{sink}": (Action.HAND_ON, {}),
    "POST /v1/notices/outbox/{sink}/delivered": (Action.HAND_ON, {"keys": ["edge-1/held/1"]}),
    "POST /v1/notices/sinks/{sink}/test": (Action.DRILL, {}),
    "POST /v1/notices/acknowledge": (None, {"key": "edge-99/held/1"}),
    "GET /v1/audit": (None, {}),
    "GET /v1/audit/newest": (None, {}),
    "GET /v1/audit/head": (None, {}),
    "GET /v1/audit/export": (None, {}),
    "POST /v1/audit/verify": (None, {}),
    "GET /v1/releases": (None, {}),
    "GET /v1/releases/{release}": (None, {}),
    "POST /v1/releases": (Action.ADD_RELEASES, {"fleet": "edge", "digest": DIGEST}),
    "POST /v1/releases/verify": (Action.PLAN, {"fleet": "edge", "digest": DIGEST}),
    "POST /v1/releases/{release}/yank": (None, WHY),
    "GET /v1/tokens": (None, {}),
    "POST /v1/tokens": (Action.ADMINISTER, {"name": "x", "grants": [{"fleet": "edge", "roles": ["viewer"]}]}),
    "POST /v1/tokens/{name}/revoke": (None, WHY),
    "POST /v1/chat/messages": (None, SAID),
    "GET /v1/chat/cards": (None, {}),
    "POST /v1/chat/cards": (None, {}),
    "POST /v1/chat/rooms": (None, {}),
    "GET /v1/chat/people": (None, {}),
    "GET /v1/chat/places": (None, {}),
    "GET /v1/chat/links": (None, {}),
    "POST /v1/chat/unlink": (None, WHY | {"workspace": "chat", "user": "@nobody:chat"}),
}
"""What each route asks of whoever calls it; None where the answer itself is cut to what they may see."""


def test_every_route_has_a_line_in_the_table() -> None:
    assert {operation.label for operation in OPERATIONS} == set(ROUTES)


A_MINUTES_CHANGES = PER_MINUTE[Kind.CHANGE] // 2


@pytest.mark.parametrize("role", [None, *sorted(OF_MACHINES)])
async def test_each_role_gets_as_far_as_the_table_says(
    role: Role | None, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    fleet = "edge" if role is not None else "core"
    grants = {fleet: frozenset({role or Role.VIEWER})}
    for number, (route, (action, body)) in enumerate(ROUTES.items()):
        if number % A_MINUTES_CHANGES == 0:
            secret, _ = ledger.make_token(f"robot-{number}", grants, timedelta(days=1), "root")
        if action is None:
            continue
        method, path = route.split()
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": str(number)}
        answer = await api.request(
            method,
            path.removeprefix("/v1").format(**NAMES),
            headers=headers,
            json=body if method == "POST" else None,
        )
        said = f"{route}: {answer.status_code} {answer.text}"
        if role is None or (
            role is Role.CHAT and action not in ALLOWED[role]
        ):  # who only hands on what others say hears of no fleet
            assert answer.status_code in {403, 404}, said
        elif action in ALLOWED[role] - OF_PEOPLE:
            assert answer.status_code != 403, said
        else:
            assert answer.status_code == 403, said


async def test_a_stranger_gets_nowhere_but_to_the_login_and_the_complaints(api: httpx.AsyncClient) -> None:
    for number, (route, (_, body)) in enumerate(ROUTES.items()):
        method, path = route.split()
        if path in {"/v1/login", "/v1/fleets/{fleet}/complaints", "/v1/fleets/{fleet}/tickets"}:
            continue  # the one asks nobody who they are, the others ask for a signature
        answer = await api.request(
            method,
            path.removeprefix("/v1").format(**NAMES),
            headers={"Authorization": "Bearer pst_0_0", "Idempotency-Key": str(number)},
            json=body if method == "POST" else None,
        )
        refused = {403} if number < Kind.STRANGER.size else {403, 429}
        assert answer.status_code in refused, f"{route}: {answer.status_code} {answer.text}"


async def test_a_release_is_withdrawn_by_who_may_wherever_it_could_be_installed(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    digest = added(ledger, "ocserv", "1.3.0")
    asked = {"reason": "leaks"}
    grants: list[tuple[Grants, int]] = [
        ({"edge": frozenset({Role.OPERATOR})}, 403),
        ({"*": frozenset({Role.CI})}, 403),
        ({"edge": frozenset({Role.OPERATOR}), "core": frozenset({Role.VIEWER})}, 403),
        ({"edge": frozenset({Role.OPERATOR}), "core": frozenset({Role.OPERATOR})}, 200),
    ]
    for n, (granted, status) in enumerate(grants):
        secret, _ = ledger.make_token(f"robot-{n}", granted, timedelta(days=1), "root")
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "1"}
        answer = await api.post(f"/releases/{digest}/yank", json=asked, headers=headers)
        assert answer.status_code == status, answer.text
        entry = ledger.audit_entries()[-1]
        assert (entry.action == "refused") == (status == 403), entry
        assert "core" not in answer.text or n  # the first has no role there


@pytest.mark.parametrize(
    ("kind", "may_they"),
    [
        (CommandKind.HOLD, True),
        (CommandKind.ABORT, True),
        (CommandKind.ROLL_BACK, True),
        (CommandKind.PROMOTE, True),
        (CommandKind.RESUME, False),
        (CommandKind.QUARANTINE, False),
    ],
)
def test_an_approver_stops_and_answers_and_sends_nothing_on(kind: CommandKind, may_they: bool) -> None:
    bert = Caller(person="bert", grants={"edge": frozenset({Role.APPROVER})}, via=Via.API)
    assert may(bert, action_of(kind), "edge") is may_they
