"""How busy a fleet is, from raw counters."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.service.login_rate import attempts_per_minute
from policies.judge.counts import Series
from policies.model.errors import Unavailable
from policies.model.fleet import Fleet, Gateway, Slot

FLEET = Fleet(
    name="edge",
    product="ocserv",
    gateways=tuple(
        Gateway(
            name=f"gw-{number}",
            addresses=(IPv4Address(f"192.0.2.{number}"),),
            slots=tuple(
                Slot(
                    name=name,
                    port=4431 + index,
                    device=f"vpn{name}",
                    pool4=IPv4Network(f"10.{number}.{index}.0/24"),
                )
                for index, name in enumerate("ab")
            ),
        )
        for number in (1, 2)
    ),
)


class Metrics:
    def __init__(self, *series: Series) -> None:
        self.series = series

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        return self.series


class Steady(Metrics):
    """Prometheus of a fleet where each gateway has three logins a minute."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        self.asked = instances
        return (counter(0, 3, 6),) * len(instances)


class NoMetrics(Metrics):
    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        raise Unavailable("Prometheus does not answer")


def counter(*values: float) -> Series:
    samples = tuple((60.0 * minute, value) for minute, value in enumerate(values))
    return Series(labels={"outcome": "ok"}, samples=samples)


@pytest.mark.parametrize(
    ("series", "rate"),
    [
        ((counter(0, 30, 60), counter(10, 20, 30)), 20.0),
        ((counter(50, 60, 0, 10),), pytest.approx(10 / 3)),
        ((counter(5), counter(0, 12)), 6.0),
    ],
)
async def test_the_rate_is_what_the_counters_rose_by_per_gateway_and_minute(
    series: tuple[Series, ...], rate: float
) -> None:
    assert await attempts_per_minute(Metrics(*series), FLEET) == rate


@pytest.mark.parametrize(("gateways", "asked"), [(1, 1), (200, 200), (201, 101), (10_000, 200)])
async def test_of_a_large_fleet_gateways_from_all_over_it_are_asked(gateways: int, asked: int) -> None:
    named = tuple(
        FLEET.gateways[0].model_copy(update={"addresses": (IPv4Address("192.0.2.0") + number,)})
        for number in range(gateways)
    )
    metrics, targets = Steady(), [one.metrics_target for one in named]
    assert await attempts_per_minute(metrics, FLEET.model_copy(update={"gateways": named})) == 3.0
    assert (len(metrics.asked), metrics.asked[0]) == (asked, targets[0])
    assert targets.index(metrics.asked[-1]) >= gateways * 0.99 - 1


async def test_traffic_that_is_not_known_is_not_zero() -> None:
    assert await attempts_per_minute(Metrics(), FLEET) is None
    assert await attempts_per_minute(NoMetrics(), FLEET) is None
    assert await attempts_per_minute(Metrics(counter(100, 101, 100, 130)), FLEET) is None
