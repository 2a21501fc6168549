"""Users whom a bad release refused, after its rollback: real ocserv, real clients, every steering."""

import shutil
from collections.abc import Iterator

import pytest

from deploy.lab.spoiled import LIBRARY, PRELOAD
from tests.drivers import front_lab
from tests.drivers.front_lab import BalancerLab, HookLab, RedirectLab
from tests.drivers.gateway_fixtures import (  # noqa: F401 - fixtures
    ON_A_REAL_GATEWAY,
    balancer,
    built_balancer,
    built_hooked,
    built_lab,
    built_redirect,
    hooked,
    lab,
    orders_wait,
    redirect,
)
from tests.drivers.gateway_lab import GatewayLab
from tests.drivers.refused_users import USER_SETTINGS, Refusal, refuse

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(not shutil.which("cc"), reason="needs cc"),
    pytest.mark.usefixtures("orders_wait"),
]
NEEDS_HAPROXY = pytest.mark.skipif(
    front_lab.why_not_here() is not None, reason=front_lab.why_not_here() or ""
)
EVERY = pytest.mark.parametrize("how", list(Refusal))
USUAL = {Refusal.AFTER_PASSWORD, Refusal.CRASHES}
"""In the others ocserv keeps nothing that looks like a session, or the same as in these."""
EVERY_OR_USUAL = pytest.mark.parametrize(
    "how", [pytest.param(one, marks=[] if one in USUAL else pytest.mark.sweep) for one in Refusal]
)


@pytest.fixture(autouse=True)
def _a_good_release(request: pytest.FixtureRequest) -> Iterator[None]:
    built = next(name for name in request.fixturenames if name.startswith("built_"))
    admission = request.getfixturevalue(built).admission
    template = admission.template.read_text()
    yield
    admission.template.write_text(template)
    shutil.rmtree(admission.tree / USER_SETTINGS, ignore_errors=True)
    for path in (LIBRARY, PRELOAD):
        (admission.tree / path).unlink(missing_ok=True)


async def at_once(lab: GatewayLab, how: Refusal) -> None:  # noqa: F811
    """newcomer 2: every login that begins after the rollback is good, and a session that worked is kept."""
    outcome = await refuse(lab, how)
    assert [one.refusals_after for one in outcome.addresses] == [0, 0], outcome
    assert min(one.refusals_before for one in outcome.addresses) >= 2
    assert outcome.worked_kept, outcome


@EVERY_OR_USUAL
async def test_a_refused_user_reaches_known_good_with_the_next_login(lab: GatewayLab, how: Refusal) -> None:  # noqa: F811
    await at_once(lab, how)


@EVERY
@NEEDS_HAPROXY
@pytest.mark.sweep
async def test_a_refused_user_is_carried_to_known_good_with_the_next_login(
    balancer: BalancerLab,  # noqa: F811
    how: Refusal,
) -> None:
    await at_once(balancer, how)


@EVERY
@NEEDS_HAPROXY
@pytest.mark.sweep
async def test_a_refused_user_is_redirected_to_known_good_with_the_next_login(
    redirect: RedirectLab,  # noqa: F811
    how: Refusal,
) -> None:
    await at_once(redirect, how)


@EVERY
@pytest.mark.sweep
async def test_a_hook_sends_a_refused_user_to_known_good_with_the_next_login(
    hooked: HookLab,  # noqa: F811
    how: Refusal,
) -> None:
    outcome = await refuse(hooked, how)
    assert [one.refusals_after for one in outcome.addresses] == [0, 0], outcome
