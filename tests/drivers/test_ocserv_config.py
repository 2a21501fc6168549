import shutil
import subprocess
from pathlib import Path

import pytest

from activities.drivers.credentials import Credentials
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.port import Secret
from activities.drivers.private_files import write_private
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Slot
from tests.drivers.gateway_lab import TEMPLATE, gateway
from tests.fakes.authority import EnterpriseCa

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/ocserv.conf.template"


@pytest.fixture
def chroot(tmp_path: Path) -> Chroot:
    (tmp_path / "conf").mkdir()
    return Chroot(gateway(), gateway().slots[1], tmp_path / "root", tmp_path / "conf", tmp_path / "run")


@pytest.fixture
def credentials(tmp_path: Path) -> dict[str, Secret]:
    for name in ("users", "certificate", "key"):
        write_private(tmp_path / name, f"secret {name}".encode())
    given = Credentials({})
    return {name: given.secret(f"file:{tmp_path / name}") for name in ("users", "certificate", "key")}


def rendered(chroot: Chroot, template: Path, credentials: dict[str, Secret]) -> str:
    Ocserv().render(chroot, template, credentials, chroot.config)
    return (chroot.config / "ocserv.conf").read_text()


@pytest.mark.parametrize("template", [TEMPLATE, EXAMPLE], ids=["lab", "example"])
def test_a_template_of_ours_speaks_of_the_slot_and_of_paths_inside(
    chroot: Chroot, credentials: dict[str, Secret], template: Path
) -> None:
    lines = rendered(chroot, template, credentials).splitlines()
    for line in (
        "tcp-port = 4432",
        "udp-port = 4432",
        "device = vpnb",
        "ipv4-network = 10.90.1.0",
        "ipv4-netmask = 255.255.255.0",
        "ipv6-network = fd90:1::/64",
        "occtl-socket-file = /run/penstock/occtl.sock",
        "server-key = /etc/penstock/credentials/key",
        'auth = "plain[passwd=/etc/penstock/credentials/users]"',
    ):
        assert line in lines


@pytest.mark.skipif(shutil.which("ocserv") is None, reason="needs ocserv")
def test_the_template_of_the_examples_is_one_that_ocserv_itself_takes(
    chroot: Chroot, credentials: dict[str, Secret], tmp_path: Path
) -> None:
    text = rendered(chroot, EXAMPLE, credentials)
    pair = EnterpriseCa(tmp_path / "ca").leaf("vpn.example")
    for name, path in zip(("key", "certificate"), pair, strict=True):
        write_private(chroot.config / "credentials" / name, path.read_bytes())
    tried = tmp_path / "ocserv.conf"

    def said(config: str) -> str:
        tried.write_text(config.replace("/etc/penstock", str(chroot.config)))
        done = subprocess.run(["ocserv", "-t", "-c", tried], capture_output=True, text=True, check=False)
        return f"{done.returncode} {done.stderr}"

    assert said(text).startswith("0 ")
    assert "unknown" not in said(text).lower()
    assert not said(text.replace("ipv4-netmask", "ipv4-netmusk")).startswith("0 ")


def test_credentials_are_readable_by_root_alone(chroot: Chroot, credentials: dict[str, Secret]) -> None:
    rendered(chroot, TEMPLATE, credentials)
    secrets = chroot.config / "credentials"
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in secrets.iterdir()} == dict.fromkeys(
        ("users", "certificate", "key"), 0o600
    )
    assert (secrets / "key").read_text() == "secret key\n"


def test_credentials_the_template_does_not_name_stay_where_they_are(
    chroot: Chroot, credentials: dict[str, Secret], tmp_path: Path
) -> None:
    template = tmp_path / "small.template"
    template.write_text("tcp-port = $port\n")
    rendered(chroot, template, credentials)
    assert list((chroot.config / "credentials").iterdir()) == []


def test_a_slot_without_ipv6_gets_no_line_about_its_pool(
    chroot: Chroot, credentials: dict[str, Secret]
) -> None:
    slot = Slot(**{**chroot.slot.model_dump(), "pool6": None})
    bare = Chroot(chroot.gateway, slot, chroot.root, chroot.config, chroot.run)
    assert "ipv6-network" not in rendered(bare, TEMPLATE, credentials)


def test_a_credential_nobody_gave_is_named(chroot: Chroot, credentials: dict[str, Secret]) -> None:
    del credentials["key"]
    with pytest.raises(BadInput, match="needs credential key"):
        rendered(chroot, TEMPLATE, credentials)


def test_a_credential_that_cannot_be_read_is_named(
    chroot: Chroot, credentials: dict[str, Secret], tmp_path: Path
) -> None:
    (tmp_path / "key").unlink()
    with pytest.raises(BadInput, match="credential key cannot be read"):
        rendered(chroot, TEMPLATE, credentials)


@pytest.mark.parametrize("line", ["banner = $nobody", "banner = 5 $", "banner = ${port"])
def test_a_placeholder_nobody_fills_is_refused(chroot: Chroot, tmp_path: Path, line: str) -> None:
    template = tmp_path / "odd.template"
    template.write_text(f"tcp-port = $port\n{line}\n")
    with pytest.raises(BadInput, match="placeholder"):
        rendered(chroot, template, {})
    assert not (chroot.config / "ocserv.conf").exists()


def test_a_dollar_in_a_comment_is_a_dollar(chroot: Chroot, tmp_path: Path) -> None:
    template = tmp_path / "comment.template"
    template.write_text("# costs 5 $\n")
    assert "# costs 5 $" in rendered(chroot, template, {}).splitlines()


def test_exempt_people_are_named_by_patterns_of_users_or_groups() -> None:
    exempt = Exempt(users=("ceo", "vip-*"), groups=("board",))
    spared = [("ceo", ""), ("vip-7", "staff"), ("ana", "board")]
    assert [exempt.spares(user, group) for user, group in spared] == [True, True, True]
    assert not exempt.spares("ceo2", "staff")
    assert not Exempt().spares("ceo", "board")


@pytest.fixture
def hidden(credentials: dict[str, Secret], tmp_path: Path) -> tuple[Path, dict[str, Secret]]:
    """A template with a secret that ocserv reads from its configuration alone, and what the gateway gives."""
    template = tmp_path / "ocserv.conf.template"
    template.write_text(TEMPLATE.read_text() + 'camouflage = true\ncamouflage_secret = "$secret_path"\n')
    write_private(tmp_path / "path", b"let me in\n")
    return template, credentials | {"path": Credentials({}).secret(f"file:{tmp_path / 'path'}")}


def test_a_secret_stands_in_an_instances_configuration_which_root_alone_reads(
    chroot: Chroot, hidden: tuple[Path, dict[str, Secret]]
) -> None:
    """Case 18: a release has the secret's name, and a gateway the secret."""
    assert 'camouflage_secret = "let me in"\n' in rendered(chroot, *hidden)
    assert (chroot.config / "ocserv.conf").stat().st_mode & 0o077 == 0
    (chroot.config / "again").mkdir()
    Ocserv().reconfigure(chroot, hidden[0], (), chroot.config / "again")
    assert 'camouflage_secret = "let me in"\n' in (chroot.config / "again/ocserv.conf").read_text()


@pytest.mark.parametrize("content", [b"", b'a"\ntcp-port = 1', b'quo"ted', b"two\nlines", b"back\\slash"])
def test_a_secret_that_could_end_its_line_is_refused(
    chroot: Chroot, hidden: tuple[Path, dict[str, Secret]], tmp_path: Path, content: bytes
) -> None:
    """Case 18: a host's file cannot add settings that nobody signed."""
    write_private(tmp_path / "path", content)
    with pytest.raises(BadInput, match="credential path"):
        rendered(chroot, *hidden)


def test_a_secret_that_was_not_given_is_named(chroot: Chroot, hidden: tuple[Path, dict[str, Secret]]) -> None:
    """Case 18."""
    template, credentials = hidden
    del credentials["path"]
    with pytest.raises(BadInput, match="needs credential path, which this gateway was not given"):
        rendered(chroot, template, credentials)


def test_a_reload_of_credentials_does_not_bring_a_secret_of_the_configuration(
    chroot: Chroot, hidden: tuple[Path, dict[str, Secret]], tmp_path: Path
) -> None:
    """Case 18: an instance would go on with the old one while the files say that it has the new one."""
    rendered(chroot, *hidden)
    write_private(tmp_path / "path", b"another\n")
    (chroot.config / "again").mkdir()
    with pytest.raises(
        Refused, match=r"credential path stands in the configuration .* bring it with an upgrade"
    ):
        Ocserv().renew(chroot, hidden[1], chroot.config / "again", older=False)
