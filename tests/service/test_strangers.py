"""Strangers and noisy callers: what they cost, and whom they keep from what."""

import asyncio
import dataclasses
import os
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from orchestrator import crowd
from orchestrator.api import peer
from orchestrator.api.limits import MOST_DESCRIPTIONS, PER_MINUTE, Kind, Limits
from orchestrator.api.routes import fleets
from orchestrator.crowd import crowd_of
from orchestrator.page.app import whole
from orchestrator.processes import api as api_process
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.listening import port_at
from orchestrator.service import identity, provider_keys
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.errors import NotAllowed, TooMany
from policies.model.people import Role
from tests.patience import PATIENCE, until
from tests.service.system_user import SystemUser
from tests.service.test_api import token
from tests.service.test_who_holds_by_the_provider import readings_waited_for

SOMEBODY_ELSE = 61009


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_and_fills_up_again() -> None:
    clock = Clock()
    limits = Limits(clock)
    for _ in range(Kind.CHANGE.size):
        limits.take("ana", Kind.CHANGE)
    with pytest.raises(TooMany) as refused:
        limits.take("ana", Kind.CHANGE)
    clock.now += refused.value.after
    limits.take("ana", Kind.CHANGE)


def test_nobody_empties_the_bucket_of_another_or_of_the_safe_direction() -> None:
    limits = Limits(Clock())
    for _ in range(Kind.CHANGE.size):
        limits.take("robot", Kind.CHANGE)
    limits.take("ana", Kind.CHANGE)
    limits.take("robot", Kind.SAFE)


@pytest.mark.parametrize(
    ("address", "crowd"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::7%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("uid:0", "uid:0"),
        ("", ""),
    ],
)
def test_who_has_a_network_has_all_of_its_addresses(address: str, crowd: str) -> None:
    assert crowd_of(address) == crowd


@pytest.mark.usefixtures("no_refill")
async def test_a_noisy_machine_hears_when_to_ask_again_and_may_still_hold(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    shown = token(ledger, Role.OPERATOR)
    answer = None
    for number in range(Kind.CHANGE.size + 1):
        asked = {"kind": "resume", "reason": "again"}
        headers = shown | {"Idempotency-Key": str(number)}
        answer = await api.post("/fleets/edge/commands", json=asked, headers=headers)
    assert answer is not None
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    held = await api.post(
        "/fleets/edge/commands",
        json={"kind": "hold", "reason": "x"},
        headers=shown | {"Idempotency-Key": "h"},
    )
    assert held.status_code != 429


@pytest.mark.usefixtures("no_refill")
async def test_a_script_that_asks_without_end_keeps_its_own_person_from_no_hold(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_MINUTE, Kind.LOOK, 10)
    shown = token(ledger, Role.OPERATOR)
    answers = [await api.get("/whoami", headers=shown) for _ in range(2 * Kind.LOOK.size)]
    assert answers[-1].status_code == 429
    held = await api.post(
        "/fleets/edge/commands",
        json={"kind": "hold", "reason": "x"},
        headers=shown | {"Idempotency-Key": "h"},
    )
    assert held.status_code != 429


@pytest.mark.usefixtures("no_refill")
async def test_requests_that_make_no_sense_are_no_way_around_the_buckets(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_MINUTE, Kind.INVALID, 10)
    shown = token(ledger, Role.OPERATOR)
    for headers in (shown, shown | {"Idempotency-Key": "n"}):
        answers = [await api.post("/fleets/edge/commands", json={}, headers=headers) for _ in range(20)]
        assert answers[-1].status_code == 429
    asked = {"kind": "hold", "reason": "x"}
    held = await api.post("/fleets/edge/commands", json=asked, headers=shown | {"Idempotency-Key": "h"})
    assert held.status_code != 429


async def test_nobody_at_the_port_names_their_own_address(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 5)
    at = socket.create_server(("127.0.0.1", 0))
    place = f"http://127.0.0.1:{at.getsockname()[1]}/v1"
    async with serving(service, at), httpx.AsyncClient(base_url=place) as client:
        for said in ("[uid:0]", "uid:0", "uid:0:0", "192.0.2.1, [uid:0]"):
            answer = await client.get("/whoami", headers={"X-Forwarded-For": said})
            assert answer.status_code in {401, 429}, answer.text
        answers = [
            (await client.get("/login", headers={"X-Forwarded-For": f"192.0.2.{n}"})).status_code
            for n in range(2 * Kind.STRANGER.size)
        ]
        assert 429 in answers


@pytest.mark.usefixtures("no_refill")
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/login"), ("POST", "/v1/fleets/edge/complaints")])
async def test_a_network_of_ipv6_is_one_stranger_at_the_doors_that_ask_for_no_login(
    service: Service, method: str, path: str
) -> None:
    """Its owner has 2**64 addresses, and each had a bucket of its own."""
    application = whole(service)

    async def asked_from(address: str) -> int:
        transport = httpx.ASGITransport(app=application, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
            return (await client.request(method, path)).status_code

    answers = [await asked_from(f"2001:db8::{number:x}") for number in range(Kind.STRANGER.size + 10)]
    assert answers[-1] == 429
    assert await asked_from("2001:db8:0:1::1") != 429


async def test_one_user_of_this_host_leaves_places_for_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 5)
    monkeypatch.setattr(peer, "PATIENCE_SECONDS", 2 * PATIENCE)  # nobody is let go because of it
    with tempfile.TemporaryDirectory(prefix="penstock-strangers-") as folder:
        place = Path(folder, "penstock.sock")
        await asyncio.to_thread(place.parent.chmod, 0o755)
        async with serving(service, socket_at(place)):
            mine = [await asyncio.open_unix_connection(os.fspath(place)) for _ in range(8)]
            async with asyncio.timeout(PATIENCE):
                ended = [await reader.read() for reader, _ in mine[:3]]
            status, _ = await SystemUser(place, SOMEBODY_ELSE)("GET", "/whoami")
            for _, writer in mine:
                writer.close()
    assert ended == [b"", b"", b""]
    assert status == 403  # answered, and not known here


async def test_a_crowd_that_says_nothing_takes_nobody_elses_place(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven addresses kept everybody out: a newcomer was refused where all places were taken."""
    monkeypatch.setattr(api_process, "MOST_CONNECTIONS", 30)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port, shown = at.getsockname()[1], token(ledger, Role.VIEWER)
    async with serving(service, at), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1") as known:
        known.headers.update(shown)
        assert (await known.get("/whoami")).status_code == 200
        silent = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{2 + number % 7}", 0))
            for number in range(40)
        ]
        for number in range(10):
            transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{100 + number}")
            async with httpx.AsyncClient(base_url=str(known.base_url), transport=transport) as newcomer:
                assert (await newcomer.get("/whoami")).status_code == 401
        assert (await known.get("/whoami")).status_code == 200
        for _, writer in silent:
            writer.close()


async def test_a_stream_ends_with_the_token_that_opened_it(
    api: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "RECOGNISED_SECONDS", 0.5)
    monkeypatch.setattr(fleets, "LOOK_SECONDS", 0.1)
    shown = token(ledger, Role.VIEWER) | {"Accept": "text/event-stream"}
    async with asyncio.timeout(PATIENCE), api.stream("GET", "/fleets/edge/events", headers=shown) as stream:
        ledger.revoke_token("robot", "root", "it was lost")
        lines = [line async for line in stream.aiter_lines()]  # until it ends
    assert not [line for line in lines if line.startswith("data:")]


async def test_an_unsigned_complaint_says_nothing_of_which_fleets_there_are(
    api: httpx.AsyncClient, service: Service, tmp_path: Path
) -> None:
    for keys in (None, tmp_path / "key"):
        (tmp_path / "key").write_text("k" * 40)
        service.complaints = dataclasses.replace(service.complaints, keys=keys)
        headers = {"X-Penstock-At": str(int(time.time())), "X-Penstock-Signature": "0" * 64}
        answers = [
            await api.post(f"/fleets/{name}/complaints", json={}, headers=headers)
            for name in ("edge", "nothing-here")
        ]
        first, second = (answer.json()["detail"].replace("nothing-here", "edge") for answer in answers)
        assert (answers[0].status_code, first) == (answers[1].status_code, second)


async def test_callers_that_say_nothing_or_not_enough_are_let_go(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low: 32 idle connections made the complaint door answer 503, and complaints counted as none."""
    monkeypatch.setattr(peer, "PATIENCE_SECONDS", 1.5)
    alone = {"Connection": "close"}  # a connection that is kept would be let go as well, while it is asked
    path = os.fspath(tmp_path / "penstock.sock")
    silent = [await asyncio.open_unix_connection(path) for _ in range(20)]
    slow = [await asyncio.open_unix_connection(path) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert (await api.get("/whoami", headers=alone)).status_code == 200
    async with asyncio.timeout(PATIENCE):
        for reader, writer in [*silent, *slow]:
            await reader.read()
            writer.close()
    assert (await api.get("/whoami")).status_code == 200


PROVIDER = """\
apiVersion: penstock/v1
oidc: {{issuer: "{issuer}", audience: penstock, client: penstock, name_claim: username}}
groups: [{{name: ops, roles: {{edge: [approver]}}}}]
"""


async def test_a_provider_that_hangs_keeps_nobody_from_asking(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "ANSWER_SECONDS", 2 * PATIENCE)
    monkeypatch.setattr(provider_keys, "UNKNOWN_WAITS_SECONDS", 2 * PATIENCE)
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 100)
    waiting = readings_waited_for(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "people.yaml").write_text(PROVIDER.format(issuer=issuer))
        shown = {"Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}
        strangers = [asyncio.create_task(api.get("/whoami", headers=shown)) for _ in range(40)]
        await until(lambda: len(waiting) == len(strangers))
        assert (await api.get("/fleets/edge")).status_code == 200
        assert not any(one.done() for one in strangers)
    await asyncio.gather(*strangers)  # whoever listened there is gone, so that nobody waits any more


async def test_nobody_of_the_provider_has_the_name_of_a_machine(
    service: Service, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token(ledger, Role.CI, name="deploy-bot")
    (tmp_path / "people.yaml").write_text(PROVIDER.format(issuer="https://id.example.org"))
    vouched = identity.Vouched(
        issuer="https://id.example.org", subject="s-1", name="deploy-bot", groups=("ops",)
    )
    monkeypatch.setattr(identity.IdentityProvider, "vouched", lambda *_: vouched)
    with pytest.raises(NotAllowed, match="a machine's name"):
        await service.caller_of_token("eyJ", "192.0.2.1")


async def test_no_machine_has_a_name_that_a_provider_could_give(api: httpx.AsyncClient) -> None:
    grants = [{"fleet": "edge", "roles": ["viewer"]}]
    answer = await api.post("/tokens", json={"name": "ana@example.org", "grants": grants})
    assert answer.status_code == 400, answer.text


async def test_what_is_wrong_with_a_file_is_said_to_who_looks_after_all_of_them(
    api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "fleets" / "core.yaml").write_text("name: core\nsecret_of_core: 1\n")
    answer = await api.get("/fleets/core", headers=token(ledger, Role.VIEWER, fleet="core"))
    assert answer.status_code == 400, answer.text
    assert "secret_of_core" not in answer.text
    assert "secret_of_core" in (await api.get("/fleets/core")).text


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def whoami(connection: Connection, shown: dict[str, str]) -> int | None:
    """Ask on this connection, and leave it open; return the status, None where it has been ended."""
    reader, writer = connection
    lines = ["GET /v1/whoami HTTP/1.1", "Host: x", f"Authorization: {shown['Authorization']}", "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return int(head.split()[1])


async def from_address(address: str, port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


async def test_an_office_behind_one_address_looks_on_whatever_strangers_there_do(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 5)
    monkeypatch.setattr(api_process, "MOST_CONNECTIONS", 30)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port = at.getsockname()[1]
    shown = [token(ledger, Role.VIEWER, name=f"robot-{number}") for number in range(12)]
    async with serving(service, at), asyncio.timeout(PATIENCE):
        office = []
        for mine in shown:
            office.append(await from_address("127.0.0.2", port))
            assert await whoami(office[-1], mine) == 200
        strangers = [await from_address("127.0.0.2", port) for _ in range(40)]
        assert {await reader.read() for reader, _ in strangers[:-5]} == {b""}
        elsewhere = await from_address("127.0.0.3", port)
        assert await whoami(elsewhere, token(ledger, Role.VIEWER)) == 200
        for connection, mine in zip(office, shown, strict=True):
            assert await whoami(connection, mine) == 200
        for _, writer in (*office, *strangers, elsewhere):
            writer.close()


async def test_a_newcomer_gets_in_behind_an_address_whose_places_a_silent_neighbour_keeps_taking(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy everybody has its address: 64 idle connections kept all of them out."""
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 5)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port = at.getsockname()[1]
    async with serving(service, at), asyncio.timeout(PATIENCE):
        silent = [await from_address("127.0.0.2", port) for _ in range(20)]
        for number in range(10):
            newcomer = await from_address("127.0.0.2", port)
            assert await whoami(newcomer, token(ledger, Role.VIEWER, name=f"newcomer-{number}")) == 200
            silent += [newcomer, await from_address("127.0.0.2", port)]
        for _, writer in silent:
            writer.close()


async def test_one_person_has_few_descriptions_read_at_once_and_others_have_theirs(
    service: Service, ledger: Ledger
) -> None:
    """Each has up to 20 MiB and takes many times that: twelve of a viewer took more than a gigabyte."""
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port = at.getsockname()[1]
    body = b"{}"

    async def began(shown: dict[str, str]) -> Connection:
        connection = await from_address("127.0.0.1", port)
        lines = ["POST /v1/fleets/edge/desired/diff HTTP/1.1", "Host: x", "Content-Type: application/json"]
        lines += [f"Authorization: {shown['Authorization']}", f"Content-Length: {len(body)}", "", ""]
        connection[1].write("\r\n".join(lines).encode())
        return connection

    async def status(connection: Connection) -> int:
        return int((await connection[0].readline()).split()[1])

    mine, other = token(ledger, Role.VIEWER), token(ledger, Role.VIEWER, name="other")
    async with serving(service, at), asyncio.timeout(PATIENCE):
        opened = [await began(mine) for _ in range(MOST_DESCRIPTIONS + 1)]
        heard = {asyncio.create_task(status(one)): one for one in opened}
        done, waiting = await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result() for one in done] == [429]
        another = await began(other)
        for connection in (another, *(heard[one] for one in waiting)):
            connection[1].write(body)
        assert [await one for one in waiting] == [200] * MOST_DESCRIPTIONS
        assert await status(another) == 200
        again = await began(mine)
        again[1].write(body)
        assert await status(again) == 200
        for _, writer in (*opened, another, again):
            writer.close()


async def test_one_person_takes_no_more_places_than_a_crowd_from_however_many_addresses(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was recognised was no crowd any more, and took every place: all others were newcomers."""
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 5)
    monkeypatch.setattr(api_process, "MOST_CONNECTIONS", 12)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port, mine = at.getsockname()[1], token(ledger, Role.VIEWER)
    async with serving(service, at), asyncio.timeout(PATIENCE):
        greedy = []
        for number in range(20):
            greedy.append(await from_address(f"127.0.0.{2 + number % 7}", port))
            assert await whoami(greedy[-1], mine) == 200
        others = [await from_address("127.0.0.100", port) for _ in range(4)]
        for number, other in enumerate(others):
            assert await whoami(other, token(ledger, Role.VIEWER, name=f"other-{number}")) == 200
        answers = [await whoami(connection, mine) for connection in greedy]
        assert answers == [None] * 15 + [200] * 5
        for _, writer in (*greedy, *others):
            writer.close()
