"""OpenVPN whose users have passwords and no certificates: counted, judged, probed and ended as all others."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.openvpn.log import LoginLog
from orchestrator.publishing.tree import collect
from policies.attempts import LoginOutcome
from policies.model.release_tests import Asked
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import TreeAdmission, operation
from tests.drivers.openvpn_lab import (
    PROGRAM,
    USERS_PORT,
    OpenVpnAdmission,
    OpenVpnClient,
    OpenVpnLab,
    why_not_here,
)
from tests.patience import PATIENCE, until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
PASSWORDS = (
    "verify-client-cert none\nscript-security 3\nauth-user-pass-verify /usr/libexec/passwords via-env\n"
)
SCRIPT = '#!/bin/sh\n[ "$password" = secret ]\n'


class PasswordAdmission(OpenVpnAdmission):
    """Admits releases that ask for a password alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.template.write_text(self.made_of.read_text() + PASSWORDS)

    def collect(self) -> None:
        collect(Path("/"), self.tree, [PROGRAM], ["/bin/sh"])
        script = self.tree / "usr/libexec/passwords"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPT)
        script.chmod(0o755)


class PasswordClient(OpenVpnClient):
    """A client that has a name and a password."""

    def __init__(self, lab: OpenVpnLab, number: int, name: str, password: str) -> None:
        self.name, self.number = f"{lab.prefix}c{number}", number
        self.log, self.answers = lab.folder / f"client-{number}.log", lab.folder / f"pings-{number}.log"
        self.pings = None
        typed = lab.folder / f"typed-{number}"
        typed.write_text(f"{name}\n{password}\n")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "openvpn", "--client", "--dev", "tun0", "--nobind",
                 "--remote", "10.77.0.1", str(USERS_PORT), "udp", "--ca", f"{lab.folder}/ca.pem",
                 "--auth-user-pass", str(typed), "--connect-retry", "1", "1", "--verb", "3",
                 "--explicit-exit-notify", "1"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        lab.people.append(self)


class PasswordLab(OpenVpnLab):
    """A gateway of such users, whose probe has a password, too."""

    def _made_admission(self) -> TreeAdmission:
        return PasswordAdmission(self.folder)

    def _made_login(self) -> ProbeLogin:
        return replace(super()._made_login(), certificate=None, key=None)


@pytest.fixture(scope="module")
def built_passwords(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PasswordLab]:
    lab = PasswordLab(tmp_path_factory.mktemp("passwords"), "pass", clients=2)
    lab.build()
    yield lab
    lab.clear()


@pytest.mark.sweep
async def test_users_without_certificates_are_counted_judged_probed_and_ended(
    built_passwords: PasswordLab,
) -> None:
    """Cases 19 and 20: OpenVPN calls them UNDEF; a drain ended their instance, and each login timed out."""
    lab = built_passwords
    async with as_new(lab):
        slot = await lab.running("1")
        probe = await lab.slots.probe(slot)
        assert probe.passed, probe
        measured = {one.test: one for one in await lab.slots.inspect(operation("inspect"), slot, None, {})}
        assert measured[Asked.LOGIN].measured == 2, measured
        assert measured[Asked.WRONG_PASSWORD].measured == 0, measured
        assert await lab.sessions.count(slot) == 0, "the probe is no user"
        await lab.table.make_permanent(operation("keep"), slot)
        person = await PasswordClient(lab, 1, "jürgen", "secret").up()
        for pattern in ("jürgen", "j?rgen", "ana"):
            named = OpenVpn(lab.login, Exempt(users=(pattern,)))
            [session] = await named.sessions(lab.folders.of(slot).chroot) or ()
            assert session.exempt is (pattern != "ana")
        refused = PasswordClient(lab, 2, "eve", "guessed")
        await refused.until("AUTH_FAILED")
        assert await lab.sessions.count(slot) == 1
        log = LoginLog()
        lines = lab.folders.of(slot).log.read_text(errors="replace").splitlines()
        found = [attempt for line in lines for attempt in log.read(line, 0.0)]
        found += log.give_up(1000.0)  # what was refused is let go some seconds later
        mine = [(one.key, one.outcome) for one in found if one.key in ("user jürgen", "source 10.77.0.12")]
        assert mine[0] == ("user jürgen", LoginOutcome.OK)
        assert ("source 10.77.0.12", LoginOutcome.AUTH_FAIL) in mine
        assert not [one for one in found if one.outcome is LoginOutcome.TIMEOUT]
        person.process.terminate()
        await asyncio.to_thread(person.process.wait, PATIENCE)

        async def has_left() -> bool:
            return await lab.sessions.count(slot) == 0

        await until(has_left)
