"""Connections that authenticated callers hold, however many they are, keep no operator from a hold."""

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from orchestrator.crowd import MOST_OF_ONE, Connections
from orchestrator.processes import api as api_process
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.patience import PATIENCE
from tests.service.test_api import token

PLACES = 130
"""Instead of 400, which need more descriptors and seven viewers instead of three."""

STREAMS = 3
"""Page streams that each viewer has."""

Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class One:
    """A connection of a `Connections` of its own."""

    places: Connections
    crowd: str
    known: bool = True
    idle: bool = True
    ended: bool = False

    def __post_init__(self) -> None:
        self.places.take(self)

    def dismiss(self) -> None:
        self.ended = True
        self.places.forget(self)


def test_where_all_are_known_a_newcomer_gets_the_oldest_idle_place_of_the_person_with_most() -> None:
    places = Connections(5)
    busy = One(places, "person:vera", idle=False)
    first, second = One(places, "person:vera"), One(places, "person:vera")
    others = [One(places, f"person:{name}") for name in ("walter", "xenia")]
    newcomer = One(places, "192.0.2.7", known=False)
    assert first.ended
    assert not [one for one in (newcomer, busy, second, *others) if one.ended]


def test_where_nothing_is_idle_a_newcomer_still_gets_a_place() -> None:
    places = Connections(3)
    before = [One(places, "person:vera", idle=False) for _ in range(3)]
    newcomer = One(places, "192.0.2.7", known=False)
    assert [one.ended for one in (*before, newcomer)] == [True, False, False, False]


def test_a_newcomer_keeps_its_place_until_half_of_all_places_were_given_to_others() -> None:
    """Known callers who open connections all the time would otherwise end it before it is authenticated."""
    places = Connections(20)
    for number in range(20):
        One(places, f"person:vera-{number % 4}")
    newcomer = One(places, "192.0.2.7", known=False)
    later = [One(places, f"192.0.2.{10 + number}", known=False) for number in range(9)]
    assert not [one for one in (newcomer, *later) if one.ended]
    One(places, "192.0.2.99", known=False)
    assert newcomer.ended


def test_the_newest_connection_of_a_person_with_too_many_is_served() -> None:
    places = Connections(2 * MOST_OF_ONE)
    busy = One(places, "person:vera", idle=False)
    idle = [One(places, "person:vera") for _ in range(MOST_OF_ONE - 1)]
    newest = One(places, "192.0.2.7", known=False)
    newest.crowd = "person:vera"
    places.recognise(newest, "192.0.2.7")
    assert [one.ended for one in (busy, newest, *idle)] == [False, False, True, *[False] * (MOST_OF_ONE - 2)]


async def test_viewers_who_hold_every_place_keep_no_operator_from_a_hold(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_process, "MOST_CONNECTIONS", PLACES)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    port = at.getsockname()[1]
    operator = token(ledger, Role.OPERATOR, name="olga") | {"Idempotency-Key": "k"}
    held: list[Raw] = []

    async def get(path: str, shown: str) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {shown}\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        held.append((reader, writer))
        return held[-1]

    async with serving(service, at):
        streams: list[Raw] = []
        for number in range(3):
            shown = token(ledger, Role.VIEWER, name=f"viewer-{number}")["Authorization"]
            streams += [await get("/v1/fleets/edge/events", shown) for _ in range(STREAMS)]
            for _ in range(PLACES // 3 - STREAMS + 1):
                await get("/v1/whoami", shown)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as olga:
            order = {"kind": "hold", "reason": "it hurts"}
            answer = await olga.post("/v1/fleets/edge/commands", json=order, headers=operator)
        async with asyncio.timeout(PATIENCE):
            while await streams[0][0].read(4096):
                pass
        for _, writer in held:
            writer.close()
    assert "the engine" in answer.text, answer.text  # which is away here: the API read the order
