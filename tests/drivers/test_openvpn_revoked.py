"""Users of OpenVPN whose certificates are revoked while it runs: real daemons without root's rights."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from policies.model.errors import BadInput, Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import TEMPLATE, OpenVpnLab, why_not_here
from tests.patience import until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]


@pytest_asyncio.fixture(loop_scope="function")
async def lab(openvpn: OpenVpnLab) -> AsyncIterator[OpenVpnLab]:  # noqa: F811
    """The lab with a release whose instances ask a list of revoked certificates, which has user 3."""
    openvpn.revoke(3)
    openvpn.compose(revoked="crl")
    openvpn.admission.template.write_text(f"{TEMPLATE.read_text()}crl-verify $credential_revoked\n")
    yield openvpn
    openvpn.admission.template.write_text(TEMPLATE.read_text())


async def refused(lab: OpenVpnLab, number: int, slot: str) -> None:
    """Have that user log in until the slot's instance says that the certificate was revoked."""
    client, log = lab.client(number), lab.folders.of(slot).log
    before = log.read_text(errors="replace").count("certificate revoked")
    # A client whose first packets are lost asks again after 14 s.
    await until(lambda: log.read_text(errors="replace").count("certificate revoked") > before)
    assert client.said(client.logged_in) == 0
    await client.leave()
    lab.people.remove(client)


@pytest.mark.sweep
async def test_who_is_revoked_is_refused_from_the_reload_on_and_nobody_else_loses_a_ping(
    lab: OpenVpnLab,
) -> None:
    await lab.table.make_permanent(operation("keep 1"), await lab.running("1"))
    old = await lab.client(2).up()
    await lab.table.make_permanent(operation("keep 2"), await lab.running("2"))
    new = await lab.client(4).up()
    for client, slot in ((old, "a"), (new, "b")):
        client.ping(slot)
    await refused(lab, 3, "b")
    lab.revoke(1)  # a list of the same size
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.slots, done.credentials) == (("a", "b"), ("revoked",))
    await refused(lab, 1, "b")
    await lab.client(3).up()
    await lab.table.make_permanent(operation("back to 1"), "a")
    await refused(lab, 1, "a")
    await lab.client(5).up()
    for client in (old, new):
        sent, lost = client.lost()
        assert (sent > 20, lost, client.alive) == (True, 0, True)


async def test_a_list_that_would_lock_everybody_out_is_refused_and_changes_nothing(lab: OpenVpnLab) -> None:
    slot = await lab.running("1")
    given = lab.folders.of(slot).path / "conf/credentials/revoked"
    before, good = given.read_bytes(), (lab.folder / "crl").read_text()
    (lab.folder / "crl").chmod(0o600)  # which one that is not whole has to be
    for content, said in (
        ("", "is empty"),
        ("nothing", "it holds no list of revoked certificates in PEM"),
        (good.replace("MI", "!!", 1), "line 1: the list of revoked certificates cannot be read"),
    ):
        (lab.folder / "crl").write_text(content)
        with pytest.raises(BadInput, match=f"credential revoked .*{said}.*; nothing was changed on gw-1$"):
            await lab.slots.reload(operation("reload"), older=False)
    assert given.read_bytes() == before
    assert (await lab.slots.probe(slot)).passed


async def test_what_is_read_at_the_start_only_is_not_put_beside_a_list(lab: OpenVpnLab) -> None:
    slot = await lab.running("1")
    given = lab.folders.of(slot).path / "conf/credentials/revoked"
    before = given.read_bytes()
    lab.revoke(1)
    kept = {end: (lab.folder / f"gw.{end}").read_bytes() for end in ("pem", "key")}
    try:
        lab.certify("gw")
        with pytest.raises(
            Refused, match=r"takes new credentials \(certificate, key\) only when it is started"
        ):
            await lab.slots.reload(operation("reload"), older=False)
    finally:
        for end, content in kept.items():
            (lab.folder / f"gw.{end}").write_bytes(content)
    assert given.read_bytes() == before


async def test_only_lists_are_seen_by_whom_an_instance_becomes(lab: OpenVpnLab) -> None:
    config = lab.folders.of(await lab.running("1")).path / "conf"
    await lab.slots.reload(operation("reload"), older=False)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (config, *config.rglob("*"))}
    assert modes.pop("revoked") == 0o644
    assert [modes.pop(name) for name in ("conf", "credentials")] == [0o711, 0o711]
    assert set(modes.values()) == {0o600}
