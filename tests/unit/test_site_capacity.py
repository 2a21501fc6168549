"""What `./run bench sites` makes of its looks at gateways."""

from typing import Any

from tests.bench.bench_sites import is_kept
from tests.bench.capacity_sampler import Sample, away, capacity
from tests.bench.site_runs import Part, Share, Strike, part_of

SAMPLES = [
    Sample(at=number / 10, answers={"gw-1": answer, "gw-3": 0.02})
    for number, answer in enumerate((0.01, None, None, 0.01, None, 0.03, None, None))
]


def test_a_gateway_that_gives_no_answer_carries_nothing() -> None:
    assert [capacity(one, ["gw-1", "gw-3"], 16) for one in SAMPLES[:3]] == [32, 16, 16]


def test_a_gateway_is_away_from_the_first_look_without_an_answer_to_the_next_with_one() -> None:
    assert [round(seconds, 1) for seconds in away(SAMPLES, "gw-1")] == [0.2, 0.1, 0.1]
    assert not list(away(SAMPLES, "gw-3"))


def test_a_part_is_kept_only_with_its_floor_its_sessions_and_its_shares() -> None:
    good = Part("clean", outcome="promoted", sessions=24, shares=[Share("east", 25, 27.9)])
    assert is_kept(good)
    bad: list[dict[str, Any]] = [
        {"outcome": "rolled_back"},
        {"below_floor": 1},
        {"sessions_lost": 1},
        {"shares": [Share("east", 25, 28.0)]},
    ]
    assert not any(is_kept(Part(**{**vars(good), **one})) for one in bad)


def test_a_part_is_the_same_after_it_was_written_down() -> None:
    strike = Strike("killed", "gw-1", 1.2, 1.2, 6, 0, 0.2, None)
    part = Part("struck", outcome="rolled_back", shares=[Share("east", 5, 5.1, "struck")], strikes=[strike])
    assert part_of(part.as_json()) == part
