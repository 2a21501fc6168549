"""Certificates of a fleet's agents: the same on the page, by the API and on the command line, worst first."""

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event, insert

from deploy.lab.lab import write_yaml
from orchestrator.page.routes.certificates import SHOWN_CERTIFICATES
from orchestrator.service.service import Service
from orchestrator.store import tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.words.certificates import certificate_line, certificates_line
from policies.model.people import Role
from tests.bench import simulated_agents
from tests.service.command_line import CommandLine
from tests.service.test_api import token

DAY = timedelta(days=1)
LARGE = 10_000
MOST_BYTES = 300_000
WORST = "<b id=forged>" + "'\"&<" * 200
"""A text whose characters each take several in markup, as long as an address book may have it."""


@dataclass(frozen=True)
class Signed:
    """A certificate as the ledger keeps it."""

    serial: str
    expires: datetime


def enrol(ledger: Ledger, gateway: str, days: float = 30, person: str = "ada", fleet: str = "edge") -> None:
    """Have a gateway get its first certificate, which is good for so many days from now."""
    secret, _ = ledger.make_enrolment(fleet, gateway, person)
    signed = Signed(f"{gateway}-{datetime.now(UTC).timestamp()}", datetime.now(UTC) + days * DAY)
    ledger.use_enrolment(secret, lambda *_: signed, "192.0.2.1")


def issue(ledger: Ledger, fleet: str, *rows: tuple[str, float, float]) -> None:
    """Have certificates that were issued, and end, so many days from now."""
    now = datetime.now(UTC)
    written = [
        {
            "serial": f"{number:x}-{gateway}",
            "fleet": fleet,
            "gateway": gateway,
            "issued_at": now + begin * DAY,
            "expires": now + end * DAY,
            "renews": None,
        }
        for number, (gateway, begin, end) in enumerate(rows)
    ]
    with writing(ledger.engine) as connection:
        connection.execute(insert(tables.gateway_certificates), written)


async def describe(service: Service, folder: Path, count: int) -> str:
    """Have a fleet of so many gateways; return its name."""
    large = simulated_agents.fleet(count)
    write_yaml(folder / "fleets" / f"{large.name}.yaml", large)
    await service.read_files()
    return large.name


@contextmanager
def statements(ledger: Ledger) -> Iterator[list[str]]:
    """Give what the database is asked during the body."""
    asked = list[str]()

    def hear(*told: object) -> None:
        asked.append(str(told[2]))

    event.listen(ledger.engine, "before_cursor_execute", hear)
    yield asked
    event.remove(ledger.engine, "before_cursor_execute", hear)


async def test_those_that_need_somebody_come_first_and_each_says_what_is_known(
    api: httpx.AsyncClient, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    fleet = await describe(service, tmp_path, 8)
    names = [f"gw-{number:05}" for number in range(8)]
    issue(
        ledger,
        fleet,
        (names[0], -1, 29),
        (names[1], -25, 5),
        (names[2], -28, 2),
        (names[3], -31, -1),
        (names[4], -40, -10),
        (names[4], -20, 10),
        ("gone", -1, 29),
        ("long-gone", -31, -1),
    )
    ledger.revoke_certificates(fleet, names[5], "ben", "stolen from rack 7")
    ledger.make_enrolment(fleet, names[6], "ada")
    found = (await api.get(f"/fleets/{fleet}/certificates")).json()
    assert [(one["gateway"], one["state"]) for one in found["certificates"]] == [
        (names[3], "ended"),
        (names[2], "ending"),
        (names[1], "late"),
        ("gone", "stray"),
        (names[5], "revoked"),
        (names[6], "unknown"),
        (names[7], "unknown"),
        (names[0], "good"),
        (names[4], "good"),
    ]
    assert found["counts"] == {
        "ended": 1,
        "ending": 1,
        "late": 1,
        "stray": 1,
        "revoked": 1,
        "unknown": 2,
        "good": 2,
    }
    assert (found["more"], found["after"]) == (0, None)
    of = {one["gateway"]: one for one in found["certificates"]}
    assert (of[names[5]]["revocation"]["person"], of[names[5]]["revocation"]["reason"]) == (
        "ben",
        "stolen from rack 7",
    )
    assert of[names[5]]["expires"] is None
    assert of[names[6]]["token"]["person"] == "ada"
    assert of[names[7]]["token"] is None
    assert datetime.fromisoformat(of[names[4]]["expires"]) > datetime.now(UTC) + 9 * DAY


async def test_what_a_person_revoked_and_enrolled_again_is_good_and_says_what_was(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    enrol(ledger, "edge-1")
    ledger.revoke_certificates("edge", "edge-1", "ben", "stolen from rack 7")
    enrol(ledger, "edge-1")
    (one,) = (await api.get("/fleets/edge/certificates")).json()["certificates"]
    assert one["state"] == "good"
    assert "what it had before was revoked" in certificate_line(one)
    assert "by ben: stolen from rack 7" in certificate_line(one)
    assert one["token"] is None, "it was used"


async def test_nothing_of_another_fleet_is_shown(api: httpx.AsyncClient, ledger: Ledger) -> None:
    enrol(ledger, "edge-1", fleet="core")
    ledger.revoke_certificates("core", "core-1", "ben", "stolen")
    ledger.make_enrolment("core", "edge-1", "ada")
    (one,) = (await api.get("/fleets/edge/certificates")).json()["certificates"]
    assert (one["gateway"], one["state"], one["token"], one["revocation"]) == (
        "edge-1",
        "unknown",
        None,
        None,
    )


async def test_a_viewer_may_look_and_a_stranger_hears_of_no_such_fleet(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    viewer, stranger = (
        token(ledger, Role.VIEWER),
        token(ledger, Role.VIEWER, fleet="core", name="other"),
    )
    assert (await api.get("/fleets/edge/certificates", headers=viewer)).status_code == 200
    refused = await api.get("/fleets/edge/certificates", headers=stranger)
    assert refused.status_code == 404
    assert refused.json()["detail"] == "there is no fleet edge; there is core"


@pytest.mark.parametrize(
    "after", ["", "good", "good:", "fine:gw-1", "good:GW", "good:gw 1", "good:\n", f"good:{'x' * 80}"]
)
async def test_a_place_that_is_none_is_refused_by_everybody_who_answers(
    api: httpx.AsyncClient, page: httpx.AsyncClient, after: str
) -> None:
    expected = 200 if after == "good:" else 422
    asked = {"after": after}
    assert (await api.get("/fleets/edge/certificates", params=asked)).status_code == expected
    assert (await page.get("/fleets/edge/certificates", params=asked)).status_code == expected


async def test_of_thousands_all_are_found_a_page_at_a_time_worst_first(
    api: httpx.AsyncClient, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    fleet = await describe(service, tmp_path, 1_000)
    names = [f"gw-{number:05}" for number in range(1_000)]
    issue(
        ledger,
        fleet,
        *[
            (name, -25 if number % 3 else -31, 5 if number % 3 else -1)
            for number, name in enumerate(names[:700])
        ],
    )
    seen, after = list[tuple[str, str]](), None
    while True:
        asked = {"limit": "300"} | ({"after": after} if after is not None else {})
        found = (await api.get(f"/fleets/{fleet}/certificates", params=asked)).json()
        seen += [(one["state"], one["gateway"]) for one in found["certificates"]]
        assert found["more"] == 1_000 - len(seen)
        after = found["after"]
        if after is None:
            break
    assert sorted(name for _, name in seen) == names
    assert [state for state, _ in seen] == ["ended"] * 234 + ["late"] * 466 + ["unknown"] * 300


@pytest.mark.sweep
async def test_a_page_of_the_largest_fleet_at_its_worst_is_small_and_asks_the_ledger_once(
    page: httpx.AsyncClient, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    fleet = await describe(service, tmp_path, LARGE)
    names = [f"gw-{number:05}" for number in range(LARGE)]
    now = datetime.now(UTC)
    issue(ledger, fleet, *[row for name in names for row in ((name, -28, 2), (name, -40, -10))])
    revoked = [
        {"fleet": fleet, "gateway": name, "at": now, "person": WORST, "reason": WORST[:500]} for name in names
    ]
    opened = [
        {
            "id": name,
            "fleet": fleet,
            "gateway": name,
            "hash": "",
            "made_by": WORST,
            "made_at": now,
            "expires": now + DAY,
        }
        for name in names
    ]
    with writing(ledger.engine) as connection:
        connection.execute(insert(tables.gateway_revocations), revoked)
        connection.execute(insert(tables.enrolments), opened)
    answer = await page.get(f"/fleets/{fleet}/certificates")
    assert answer.status_code == 200
    assert len(answer.content) <= MOST_BYTES
    assert f">{LARGE - SHOWN_CERTIFICATES} more</a>" in answer.text
    assert "<b id=forged>" not in answer.text
    root = service.people.at_the_socket(0)
    with statements(service.certificates.ledger) as asked:
        await service.certificates.of(root, fleet, None, 100)
    assert len([one for one in asked if "SELECT" in one]) == 1, asked


async def test_page_api_and_command_say_the_same(
    api: httpx.AsyncClient,
    page: httpx.AsyncClient,
    penstock: CommandLine,
    service: Service,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    fleet = await describe(service, tmp_path, 3)
    issue(ledger, fleet, ("gw-00000", -25, 5), ("gw-00001", -1, 29))
    ledger.revoke_certificates(fleet, "gw-00002", "ben", "stolen [red] \x1b[31m <b>")
    found = (await api.get(f"/fleets/{fleet}/certificates")).json()
    answer = await page.get(f"/fleets/{fleet}/certificates")
    shown = html.unescape(re.sub(r"<[a-z/!][^>]*>", "", answer.text))
    said = await penstock("gateway", "certificates", fleet)
    assert said.code == 0, said.err
    told = " ".join(said.out.split())
    for one in found["certificates"]:
        line = certificate_line(one)
        assert line in shown
        for word in line.split():
            assert word in told
    counted = certificates_line(found).partition(", as the ledger")[0]
    assert counted in shown
    assert counted in told
    assert "\x1b" not in said.out
    document = json.loads((await penstock("gateway", "certificates", fleet, "-o", "json")).out)
    assert document["kind"] == "FleetCertificates"
    assert document["data"]["certificates"] == found["certificates"]
    first = await penstock("gateway", "certificates", fleet, "--limit", "1")
    assert f"2 more: penstock gateway certificates {fleet} --after late:gw-00000" in first.out
    rest = await penstock("gateway", "certificates", fleet, "--after", "late:gw-00000", "-o", "name")
    assert rest.out.split() == ["gw-00002", "gw-00001"]
