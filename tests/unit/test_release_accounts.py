"""As whom a daemon runs is looked up among the accounts of its own tree, before anybody signs it."""

from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn.template import accounts_in as openvpn_accounts_in
from activities.drivers.daemon.template import Accounts
from orchestrator.publishing.builder import ReleaseLabels, build_release
from policies.model.errors import BadInput
from tests.fakes.trees import small_tree


def build(folder: Path, *lines: str, groups: str = "root:x:0:\nnogroup:x:65534:\n") -> None:
    tree, template = small_tree(folder)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
    (tree / "etc/group").write_text(groups)
    template.write_text(template.read_text() + "\n".join(lines) + "\n")
    build_release(tree, template, ReleaseLabels(product="gw", version="1.0"), folder / "blobs")


def test_a_group_that_the_tree_lacks_is_named_with_those_that_it_has(tmp_path: Path) -> None:
    """newcomer 4: Debian's own ocserv.conf says `run-as-group = daemon`, and the host refused it later."""
    with pytest.raises(
        BadInput, match=r"run-as-group names group daemon, and etc/group of .* has only root, nog"
    ):
        build(tmp_path, "run-as-user = nobody", "run-as-group = daemon")


def test_a_user_that_the_tree_lacks_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"run-as-user names user vpn, and etc/passwd of .* has only root, nobody"
    ):
        build(tmp_path, "run-as-user = vpn")


def test_a_tree_with_the_account_is_built(tmp_path: Path) -> None:
    build(tmp_path, "run-as-user = nobody", "run-as-group = daemon", groups="root:x:0:\ndaemon:x:1:\n")


def test_an_openvpn_names_its_accounts_by_options_of_its_own() -> None:
    assert openvpn_accounts_in("# user a\nuser nobody\ngroup daemon\n") == Accounts(
        ("user", ("nobody",)), ("group", ("daemon",))
    )
