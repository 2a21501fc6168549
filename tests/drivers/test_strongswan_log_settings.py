"""A template that is taken has charon log each login, in a form that is read: a real charon, two users."""

import pytest

from activities.drivers.daemon.strongswan.log import LoginLog
from activities.drivers.daemon.strongswan.template import require_template
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_strongswan, strongswan  # noqa: F401
from tests.drivers.gateway_lab import operation
from tests.drivers.strongswan_lab import StrongSwanLab, why_not_here
from tests.patience import until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
QUIET = "default = 0\n dmn = 1\n ike = 1\n cfg = 1\n enc = 1\n job = 1\n"


@pytest.mark.parametrize(
    "more",
    ["log_level = yes\n ike = 2\n", "time_format = %b %e %T\n time_add_ms = yes\n", QUIET],
    ids=["levels are shown", "with stamps", "what is needed alone"],
)
async def test_a_good_and_a_bad_login_are_read_whatever_else_charon_logs(
    strongswan: StrongSwanLab,  # noqa: F811
    more: str,
) -> None:
    template = strongswan.admission.template
    before = template.read_text()
    text = before.replace("default = 1\n", more, 1)
    assert text != before
    require_template(text, "strongswan.conf.template")
    try:
        template.write_text(text)
        slot = await strongswan.running("1")
        await strongswan.table.make_permanent(operation("keep 1"), slot)
        await strongswan.client(1).up()
        strongswan.forge("user2")
        strongswan.client(2)
        log, found = strongswan.folders.of(slot).log, dict[str, str]()

        def are_told() -> bool:
            nonlocal found
            found = _read(log.read_text(errors="replace"))
            return len(found) > 1

        await until(are_told)
        assert found["user user1"] == "ok"
        assert "auth_fail" in found.values()
    finally:
        template.write_text(before)
        strongswan.certify_by_authority("user2")


def _read(log: str) -> dict[str, str]:
    reader = LoginLog()
    return {one.key: one.outcome.value for line in log.splitlines() for one in reader.read(line, 0.0)}
