"""A renewed certificate on a live gateway: real daemons and users, from the dropped file to the wire."""

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from policies.model.errors import BadInput, Refused
from tests.drivers.certificates import CertifiedHost
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.wire import served

pytestmark = ON_A_REAL_GATEWAY

PORT = 4431
CURRENT = "penstock/certificate/current"
OURS = {"certificate": f"{CURRENT}/chain.pem", "key": f"{CURRENT}/key.pem"}
CLIENTS = 5


@pytest.fixture
def host(lab: GatewayLab) -> Iterator[CertifiedHost]:  # noqa: F811
    """The lab's gateway, which takes its certificate from where somebody drops it."""
    live = {"certificate": str(lab.folder / "live.pem"), "key": str(lab.folder / "live.key")}
    found = CertifiedHost(lab.folder, {"file": live}, lab.folder / "ca.pem", "10.77.0.1")
    drop(lab, days=2)
    found.renewal.renew()
    lab.compose(**OURS)
    yield found
    shutil.rmtree(found.settings.certificate_folder)


def drop(lab: GatewayLab, *, days: int, address: str = "10.77.0.1") -> str:  # noqa: F811
    """Drop another certificate as certbot does; return its SHA-256."""
    return lab.certify("live", days=days, address=address)


async def test_a_renewed_certificate_waits_is_told_and_is_served_after_the_reload(
    lab: GatewayLab,  # noqa: F811
    host: CertifiedHost,
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    before = await served(PORT)
    assert (await lab.slots.observe()).unserved == ()
    renewed = drop(lab, days=3)
    assert (host.is_due(), await served(PORT)) == (True, before)
    host.renewal.renew()
    assert (await served(PORT), (await lab.slots.observe()).unserved) == (before, ("certificate", "key"))
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.credentials, done.state.unserved) == (("certificate", "key"), ())
    assert await served(PORT) == renewed
    assert (await lab.slots.probe("a")).passed


async def test_a_reload_in_the_moment_between_two_generations_gives_a_pair_or_nothing(
    lab: GatewayLab,  # noqa: F811
    host: CertifiedHost,
) -> None:
    await lab.running("1")
    before = await served(PORT)
    drop(lab, days=3)
    given = lab.slots._reloads._credentials
    chain = given["certificate"]()
    host.renewal.renew()
    lab.slots._reloads._credentials = {**given, "certificate": lambda: chain}
    with pytest.raises(BadInput, match=r"not the key of credential certificate .*; nothing was changed"):
        await lab.slots.reload(operation("reload"), older=False)
    assert await served(PORT) == before


async def test_what_users_would_not_take_is_never_served_and_the_gateway_says_so(
    lab: GatewayLab,  # noqa: F811
    host: CertifiedHost,
) -> None:
    await lab.running("1")
    before = await served(PORT)
    drop(lab, days=3, address="10.77.0.2")
    with pytest.raises(Refused, match=r"would not take it for 10\.77\.0\.1") as refused:
        host.renewal.renew()
    host.renewal.note(refused.value, datetime.now(UTC))
    lab.slots._unrenewed = lambda: host.renewal.failing
    state = await lab.slots.reload(operation("reload"), older=False)
    assert (state.credentials, await served(PORT)) == ((), before)
    assert "would not take it for 10.77.0.1" in (await lab.slots.observe()).unrenewed


@pytest.mark.sweep
async def test_of_a_thousand_pings_none_is_lost_while_a_certificate_is_renewed_and_reloaded(
    lab: GatewayLab,  # noqa: F811
    host: CertifiedHost,
) -> None:
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    people = [await lab.client(number).up() for number in range(1, CLIENTS + 1)]
    for client in people:
        client.ping()
    renewed = drop(lab, days=3)
    host.renewal.renew()
    await lab.slots.reload(operation("reload"), older=False)
    assert await served(PORT) == renewed
    await asyncio.sleep(13)
    counted = [client.lost() for client in people]
    assert sum(sent for sent, _ in counted) >= 1000
    assert [(lost, client.alive) for (_, lost), client in zip(counted, people, strict=True)] == [
        (0, True)
    ] * CLIENTS
