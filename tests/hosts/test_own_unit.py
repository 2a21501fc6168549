"""The unit of a daemon that was adopted, on a booted host: who starts what after which reboot."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.debian.contents import PACKAGES
from tests.hosts import ocserv
from tests.hosts.beside_systemd import on
from tests.hosts.host import Host

pytestmark = [pytest.mark.lab, pytest.mark.sweep]


@dataclass(frozen=True)
class Gateway:
    """A booted host with Debian's ocserv on 443, and the folder of its agent."""

    host: Host
    agent: Path

    @property
    def unit(self) -> tuple[str, str]:
        """Whether the daemon's own unit runs, and whether it is started at boot."""
        said = [
            self.host.run("systemctl", verb, ocserv.UNIT, may_fail=True)
            for verb in ("is-active", "is-enabled")
        ]
        return said[0].out.strip(), said[1].out.strip()


@pytest.fixture(scope="module")
def gateway(booted: Host, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    return Gateway(booted, tmp_path_factory.mktemp("agent"))


def test_a_unit_is_disabled_after_the_first_promotion_and_started_again_when_it_is_handed_back(
    gateway: Gateway,
) -> None:
    host, agent = gateway.host, gateway.agent
    told = on(host, agent, "adopt", "follow")
    assert (told["serving"], told["adopted"], told["record"]) == ("adopted", "running", [])
    assert gateway.unit == ("active", "enabled")
    evidence = dict(on(host, agent, "freeze")["record"])
    assert ocserv.FILE in evidence["config"]
    assert "sec-mod initialized" in evidence["log"]
    host.reboot()
    host.wait_for(ocserv.UNIT)
    told = on(host, agent, "resume")
    assert (told["serving"], told["adopted"], told["record"]) == ("adopted", "running", [])
    told = on(host, agent, "promote")
    assert (told["serving"], gateway.unit) == ("a", ("active", "enabled"))
    told = on(host, agent, "resume", "follow")
    disabled = ["own unit disabled", "ocserv.service: an instance of ours serves in its daemon's place"]
    assert told["record"] == [disabled]
    assert (told["adopted"], gateway.unit) == ("running", ("active", "disabled"))
    told = on(host, agent, "empty", "follow")
    stopped = ["own unit stopped", "ocserv.service: nobody uses the daemon that was adopted"]
    assert (told["adopted"], told["record"]) == ("stopped", [stopped])
    assert gateway.unit == ("inactive", "disabled")
    host.reboot()
    told = on(host, agent, "resume")
    assert (told["serving"], told["record"], gateway.unit) == ("a", [], ("inactive", "disabled"))
    program = host.disk / "usr/sbin/ocserv"
    kept = program.read_bytes()
    program.write_bytes(kept + b"another")
    told = on(host, agent, "hand back")
    assert "what its unit runs now is another executable" in told["refused"]
    assert (told["serving"], gateway.unit) == ("a", ("inactive", "disabled"))
    program.write_bytes(kept)
    told = on(host, agent, "hand back", "follow")
    assert [action for action, _ in told["record"]] == ["own unit started", "own unit enabled"]
    assert (told["serving"], told["adopted"]) == ("adopted", "running")
    assert gateway.unit == ("active", "enabled")


def test_the_agents_sandbox_lets_it_speak_to_systemd(gateway: Gateway) -> None:
    [unit] = [
        file
        for one in PACKAGES
        for file in (one.folder / "lib/systemd/system").glob("penstock-agent.service")
    ]
    service = unit.read_text().partition("[Service]\n")[2].partition("[Install]")[0]
    gone = ("Type=", "Exec", "Environment", "Restart", "TimeoutStop", "KillMode", "Delegate", "#")
    rules = [line for line in service.splitlines() if line and not line.startswith(gone)]
    assert "NoNewPrivileges=yes" in rules
    within = ["systemd-run", "--wait", "--pipe", "--quiet", *(f"--property={rule}" for rule in rules)]
    for verb, becomes in (("disable", "disabled"), ("enable", "enabled")):
        gateway.host.run(*within, "env", "SYSTEMCTL_SKIP_SYSV=1", "systemctl", verb, "--", ocserv.UNIT)
        assert gateway.unit[1] == becomes
