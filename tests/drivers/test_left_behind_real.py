"""What an adoption leaves behind comes with the release, by the commands of docs/releases.md."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.session import hold_session
from orchestrator.publishing.tree import PROGRAMS, collect
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission

pytestmark = ON_A_REAL_GATEWAY
PAGE = (Path(__file__).parents[2] / "docs/releases.md").read_text()
SECTION = PAGE.partition("## What an adoption leaves behind\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(?:console)?\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for line in BLOCKS[0].splitlines()]
"""The first makes the tree of Debian's packages; here it is one of this host, with what `--also` names."""
LINES = BLOCKS[1]
OWN = {
    "groups/staff": "route = 10.55.0.0/16\n",
    "group-default.conf": "route = 10.56.0.0/16\n",
    "connect.sh": '#!/bin/sh\necho "$USERNAME $REASON $GROUPNAME" >/run/penstock/connected\n',
}
"""What lies in /etc/ocserv of the gateway that was adopted."""


class CompanyAdmission(TreeAdmission):
    """Admits releases that were made by the commands of the page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.template.write_text(self.made_of.read_text() + LINES)

    def collect(self) -> None:
        collect(Path("/"), self.tree, PROGRAMS, re.findall(r"--also (\S+)", COMMANDS[0]))
        etc = self.tree.parent / "etc"
        for name, content in OWN.items():
            (etc / name).parent.mkdir(parents=True, exist_ok=True)
            (etc / name).write_text(content)
        script = "\n".join(["set -e", f"mount --bind {etc} /etc/ocserv", *COMMANDS[1:]])
        subprocess.run(["unshare", "--mount", "sh", "-c", script], cwd=self.tree.parent, check=True)


class CompanyLab(GatewayLab):
    """A gateway whose users are in groups."""

    def furnish(self) -> None:
        super().furnish()
        users = (self.folder / "users").read_text()
        (self.folder / "users").write_text(users.replace("probe:*:", "probe:staff:"))

    def _made_admission(self) -> TreeAdmission:
        return CompanyAdmission(self.folder)


@pytest.fixture(scope="module")
def built_company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompanyLab]:
    lab = CompanyLab(tmp_path_factory.mktemp("company"), "comp", clients=1)
    lab.build()
    yield lab
    lab.clear()


async def test_groups_and_a_script_of_the_adopted_daemon_work_in_the_first_release(
    built_company: CompanyLab,
) -> None:
    """Newcomer 13: the commands of the page, on a real gateway; no document had any."""
    for key in ("config-per-group", "default-group-config", "connect-script"):
        assert re.search(rf"^{key} = /", LINES, re.MULTILINE)
    lab = built_company
    async with as_new(lab):
        environment = lab.folders.of(await lab.running("1")).chroot
        session = await hold_session(environment, lab.login)
        assert session.let_in, session.words
        assert "10.55.0.0/16" in session.routes
        assert (environment.run / "connected").read_text().startswith("probe ")
