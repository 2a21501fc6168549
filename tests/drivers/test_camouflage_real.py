"""ocserv behind `camouflage`: its probe, its release tests and its mirror log in by the secret address."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.private_files import write_private
from deploy.lab import trees
from policies.model.errors import Unavailable
from policies.model.mirror import ClientKind, ShadowLogin
from policies.model.release_tests import Asked
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission
from tests.lab.own_state import SHARED

pytestmark = ON_A_REAL_GATEWAY
SECRET = "let-me-in"
HIDDEN = 'camouflage = true\ncamouflage_secret = "$secret_camouflage"\ncamouflage_realm = "Admin"\n'


class HiddenAdmission(TreeAdmission):
    """Admits releases of the next Debian's ocserv, whose template has camouflage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.template.write_text(self.made_of.read_text() + HIDDEN)

    def collect(self) -> None:
        trees.collect_next_tree(self.tree, SHARED)


class HiddenLab(GatewayLab):
    """A gateway whose users dial https://GATEWAY/?SECRET."""

    credentials: Mapping[str, str] = {**GatewayLab.credentials, "camouflage": "camouflage"}

    def furnish(self) -> None:
        write_private(self.folder / "camouflage", f"{SECRET}\n".encode())
        super().furnish()

    def _made_admission(self) -> TreeAdmission:
        return HiddenAdmission(self.folder)

    def _made_login(self) -> ProbeLogin:
        return replace(super()._made_login(), camouflage=self.folder / "camouflage")


@pytest.fixture(scope="module")
def built_hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HiddenLab]:
    lab = HiddenLab(tmp_path_factory.mktemp("hidden"), "hide", clients=1)
    try:
        lab.build()
    except Unavailable as error:
        lab.clear()
        pytest.skip(f"the next Debian's ocserv is not here: {error}")
    yield lab
    lab.clear()
    shutil.rmtree(lab.folder, ignore_errors=True)


@pytest.mark.sweep
async def test_a_release_with_camouflage_is_probed_tested_and_mirrored_by_its_secret_address(
    built_hidden: HiddenLab,
) -> None:
    """Case 18: only https://HOST/?SECRET gets an answer, so each of them failed with 404."""
    lab = built_hidden
    async with as_new(lab):
        chroot = lab.folders.of(await lab.running("1")).chroot
        blind = Ocserv(replace(lab.login, camouflage=None))
        assert not (await blind.probe(chroot)).passed
        daemon = Ocserv(lab.login)
        probe = await daemon.probe(chroot)
        assert probe.passed, probe
        shadow = await daemon.shadow(
            chroot, ShadowLogin(after=0, client=ClientKind.OPENCONNECT, family=4, udp=True)
        )
        assert shadow.passed, shadow
        measured = {one.test: one for one in await daemon.inspect(chroot)}
        assert measured[Asked.LOGIN].measured == 2, measured
        assert measured[Asked.WRONG_PASSWORD].measured == 0, measured
        assert measured[Asked.PINGS_LOST].measured == 0, measured
