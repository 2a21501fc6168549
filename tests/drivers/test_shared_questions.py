"""What many ask of a cluster at once: one question for all, soon again; one list where many are missing."""

import asyncio
from collections.abc import Mapping
from typing import Any

from activities.drivers.runtime.kubernetes.nodes import Extent, read_nodes
from activities.drivers.runtime.kubernetes.pods import read_pods
from activities.drivers.runtime.kubernetes.together import LONGEST_PAUSE, Together
from activities.drivers.runtime.kubernetes.words import Share

SHARE = Share(
    fleet="edge",
    cluster="west",
    namespace="penstock",
    slots={slot: f"edge-{slot}" for slot in "abc"},
    container="gateway",
    repository="registry.example/vpn/edge",
    bears={"penstock.dev/edge": "true"},
)


async def test_who_asks_after_a_thousand_others_is_answered_within_the_longest_pause() -> None:
    questions: list[int] = []

    async def read(keys: set[int]) -> Mapping[int, int]:
        questions.append(len(keys))
        return {key: key for key in keys}

    asking = Together(read, gather=0.0, apart=0.0, each=1.0)
    assert await asyncio.gather(*[asking.ask(key) for key in range(1000)]) == list(range(1000))
    assert await asyncio.wait_for(asking.ask(7), LONGEST_PAUSE + 10) == 7
    assert questions == [1000, 1]


async def test_who_expects_nothing_yet_causes_no_question_and_is_answered_by_that_of_another() -> None:
    questions: list[set[str]] = []

    async def read(keys: set[str]) -> Mapping[str, int]:
        questions.append(keys)
        return dict.fromkeys(keys, len(questions))

    asking = Together(read, gather=0.0, apart=0.0)
    patient = asyncio.create_task(asking.ask("patient", after=3600))
    await asyncio.sleep(0.1)
    assert questions == []
    assert await asking.ask("hurried") == 1
    assert await patient == 1
    assert questions == [{"patient", "hurried"}]


async def test_who_comes_while_a_question_is_under_way_is_answered_by_the_next_one() -> None:
    begun, may_end, questions = asyncio.Event(), asyncio.Event(), 0

    async def read(keys: set[str]) -> Mapping[str, int]:
        nonlocal questions
        questions += 1
        begun.set()
        await may_end.wait()
        return dict.fromkeys(keys, questions)

    asking = Together(read, gather=0.0, apart=0.0)
    early = asyncio.create_task(asking.ask("early"))
    await begun.wait()
    late = asyncio.create_task(asking.ask("late"))
    await asyncio.sleep(0)
    may_end.set()
    assert (await early, await late) == (1, 2)


class ApiOfNodes:
    """An API server that has nodes, of which none bears a label, and notes what is listed."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self.selected: list[str] = []

    async def listed(self, call: Any, read: Any) -> list[Any]:
        selector = call.query.get("labelSelector") or call.query.get("fieldSelector") or ""
        self.selected.append(selector)
        named = selector.removeprefix("metadata.name=")
        found = [name for name in self._names if selector in ("", f"metadata.name={named}")]
        return [read({"metadata": {"name": name}}) for name in found]


async def test_the_few_pods_of_a_slot_that_fills_say_nothing_of_how_large_the_fleet_is() -> None:
    extent, api = Extent(), ApiOfNodes(set())
    extent.was(10_000)
    filling = {(f"worker-{number}", "b") for number in range(50)}
    await read_pods(api, SHARE, filling, extent)  # type: ignore[arg-type]
    assert extent.is_long
    await read_pods(api, SHARE, {(name, "") for name, _ in filling}, extent)  # type: ignore[arg-type]
    assert not extent.is_long


async def test_many_nodes_that_are_not_the_fleets_any_more_are_found_by_one_list() -> None:
    api = ApiOfNodes({f"worker-{number}" for number in range(300)})
    wanted = {f"worker-{number}" for number in range(301)}
    found = await read_nodes(api, SHARE, wanted, Extent())  # type: ignore[arg-type]
    assert len(found) == 300
    assert api.selected == ["penstock.dev/edge=true", ""]
