"""Credentials of running instances replaced: real daemons, real users, the certificate seen on the wire."""

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.ocserv.daemon import Ocserv
from policies.model.errors import BadInput, Fenced, Refused
from policies.model.instance import InstanceState
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.wire import served as served_at
from tests.patience import PATIENCE, until

pytestmark = ON_A_REAL_GATEWAY

PORTS = {"a": 4431, "b": 4432}


@pytest.fixture(autouse=True)
def files(built_lab: GatewayLab) -> None:  # noqa: F811
    """Begin with the files of the lab, whatever the test before has made of them."""
    kept = built_lab.folder / "kept"
    if not kept.exists():
        kept.mkdir()
        for name in ("users", "gw.pem", "gw.key"):
            shutil.copy2(built_lab.folder / name, kept / name)
    for path in kept.iterdir():
        shutil.copy2(path, built_lab.folder / path.name)


async def served(slot: str) -> str:
    """Return the SHA-256 of the certificate that the slot's own port serves."""
    return await served_at(PORTS[slot])


def renew(lab: GatewayLab, **more: object) -> str:  # noqa: F811
    """Put a new certificate in place of the gateway's, with its key; return its SHA-256."""
    made = lab.certify("next", **more)  # type: ignore[arg-type]
    for end in ("pem", "key"):
        shutil.copy(lab.folder / f"next.{end}", lab.folder / f"gw.{end}")
    return made


def without(lab: GatewayLab, user: str) -> None:  # noqa: F811
    """Take a user out of the host's list."""
    users = lab.folder / "users"
    users.write_text("".join(line for line in users.open() if not line.startswith(f"{user}:")))


async def test_a_host_tells_which_of_its_credentials_cannot_be_read(lab: GatewayLab) -> None:  # noqa: F811
    (lab.folder / "gw.key").write_text("")
    lab.compose(authorities="none.pem")
    told = {one.name: one.missing for one in (await lab.slots.observe()).credentials or ()}
    assert (told.pop("users"), told.pop("certificate")) == ("", "")
    assert told == {
        "key": f"the credential file {lab.folder / 'gw.key'} is empty",
        "authorities": f"the credential file {lab.folder / 'none.pem'} cannot be read: FileNotFoundError",
    }


async def is_let_in(lab: GatewayLab, number: int, port: int) -> bool:  # noqa: F811
    """Log in at an instance's own port; return whether it lets the user in."""
    client = lab.client(number, url_port=port)
    try:
        await client.until("penstock: tunnel")
    except AssertionError:
        assert client.said("Login failed"), client.log.read_text()
        return False
    finally:
        await client.leave()
        lab.people.remove(client)
    return True


async def serving_beside(lab: GatewayLab) -> None:  # noqa: F811
    """Have release 1 run in slot a, whose sessions drain, and release 2 serve in slot b."""
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    await lab.running("2")


@pytest.mark.sweep
async def test_what_serves_and_what_drains_take_users_and_certificate_and_no_ping_is_lost(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await serving_beside(lab)
    old = await lab.client(1).up()
    await lab.table.make_permanent(operation("switch"), "b")
    new = await lab.client(2).up()
    for client, slot in ((old, "a"), (new, "b")):
        client.ping(slot)
    without(lab, "user3")
    certificate = renew(lab)
    pids = lab.daemons()
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.slots, done.credentials) == (("a", "b"), ("certificate", "key", "users"))
    assert [await served(slot) for slot in "ab"] == [certificate, certificate]
    for port in PORTS.values():
        assert not await is_let_in(lab, 3, port)
        assert await is_let_in(lab, 4, port)
    again = await lab.slots.reload(operation("reload"), older=False)
    assert (again.credentials, again.state.changed, lab.daemons()) == ((), False, pids)
    assert [(await lab.slots.probe(slot)).passed for slot in "ab"] == [True, True]
    for client in (old, new):
        sent, lost = client.lost()
        assert (sent > 20, lost, client.alive) == (True, 0, True)


async def test_an_rsa_certificate_takes_the_place_of_another_kind(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    certificate = renew(lab, kind="--rsa")
    await lab.slots.reload(operation("reload"), older=False)
    assert await served("a") == certificate


def damage(lab: GatewayLab, how: str) -> None:  # noqa: F811
    """Make one of the host's files one that may not be used."""
    match how:
        case "empty":
            (lab.folder / "users").write_text("# nobody yet\n")
        case "cut off":
            content = (lab.folder / "users").read_text()
            (lab.folder / "users").write_text(content[: content.index("user1:") + 30])
        case "no probe":
            without(lab, "probe")
        case "other key":
            lab.certify("other")
            shutil.copy(lab.folder / "other.key", lab.folder / "gw.key")
        case "no key":
            (lab.folder / "gw.key").write_text("nothing\n")
        case "ends sooner":
            renew(lab, days=1)
        case "names less":
            renew(lab, address="10.77.0.2")
        case _:
            (lab.folder / "users").unlink()


SAID = {
    "empty": r"credential users \(file:.*/users\): it names no user",
    "cut off": r"credential users \(file:.*/users\) line 2: it is not NAME:GROUPS:HASH",
    "no probe": r"credential users \(file:.*/users\): it does not name probe any more",
    "other key": r"credential key \(file:.*/gw.key\): it is not the key of credential certificate \(file:",
    "no key": r"credential key \(file:.*/gw.key\): it holds no key that can be read",
    "ends sooner": r"credential certificate \(file:.*/gw.pem\): its certificate ends at .*--even-if-older",
    "names less": r"credential certificate \(file:.*\): its certificate does not name 10.77.0.1, as the one",
    "missing": r"credential users cannot be read: the credential file .*/users cannot be read",
}


async def test_a_bad_file_is_named_and_changes_nothing_in_any_slot(lab: GatewayLab) -> None:  # noqa: F811
    await serving_beside(lab)
    before, pids = [_contents(lab, slot) for slot in "ab"], lab.daemons()
    for how, said in SAID.items():
        damage(lab, how)
        with pytest.raises(BadInput, match=f"{said}.*; nothing was changed on gw-1$"):
            await lab.slots.reload(operation("reload"), older=False)
        for path in (lab.folder / "kept").iterdir():
            shutil.copy2(path, lab.folder / path.name)
        assert [_contents(lab, slot) for slot in "ab"] == before, how
    assert lab.daemons() == pids
    assert [(await lab.slots.probe(slot)).passed for slot in "ab"] == [True, True]


async def test_who_means_it_gets_a_certificate_that_ends_sooner(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    certificate = renew(lab, days=1)
    await lab.slots.reload(operation("reload"), older=True)
    assert await served("a") == certificate


@pytest.mark.parametrize(
    "line",
    [
        "half put",
        *(pytest.param(line, marks=pytest.mark.sweep) for line in ("prepared", "checked", "put", "told")),
    ],
)
async def test_a_reload_killed_anywhere_is_finished_by_its_repeat(lab: GatewayLab, line: str) -> None:  # noqa: F811
    await serving_beside(lab)
    client = await lab.client(1).up()
    client.ping("a")
    without(lab, "user3")
    certificate = renew(lab)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.drivers.dying_agent", lab.folder, lab.tag, "reload", "1", line
    )
    assert await asyncio.wait_for(agent.wait(), PATIENCE) == -signal.SIGKILL
    lab.compose()
    await lab.slots.reload(operation("reload"), older=False)
    assert [await served(slot) for slot in "ab"] == [certificate, certificate]
    assert not list(lab.root.glob("slots/*/conf.next"))
    for slot in "ab":
        assert "user3:" not in (lab.root / "slots" / slot / "conf/credentials/users").read_text()
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent, lost = client.lost()
    assert (sent > 10, lost, client.alive) == (True, 0, True)


async def test_a_reload_takes_nothing_over_from_who_owns_the_gateway(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1", epoch=5)
    await lab.slots.reload(operation("reload", rollout="r-reload", epoch=9), older=False)
    assert (await lab.slots.observe()).epoch == 5
    await lab.slots.fence(operation("fence", rollout="r-back", epoch=10))
    with pytest.raises(Fenced):
        await lab.slots.reload(operation("reload", rollout="r-reload", epoch=9), older=False)


def change_the_probes_password(lab: GatewayLab) -> None:  # noqa: F811
    """Make the list one that is sound, and yet no login of the probe goes well with it."""
    users = lab.folder / "users"
    hashed = next(line for line in users.open() if line.startswith("user1:")).strip().partition(":")[2]
    lines = [f"probe:{hashed[:-5]}AAAA.\n" if one.startswith("probe:") else one for one in users.open()]
    users.write_text("".join(lines))


@pytest.mark.sweep
async def test_a_list_with_which_nobody_gets_in_is_taken_back_in_every_slot(lab: GatewayLab) -> None:  # noqa: F811
    """Another password of the probe: the file is sound, and yet no login goes well with it."""
    await serving_beside(lab)
    client = await lab.client(1).up()
    client.ping("a")
    before = [_contents(lab, slot) for slot in "ab"]
    change_the_probes_password(lab)
    with pytest.raises(Refused, match=r"slot a of gw-1 failed its probe at auth .* is as it was before"):
        await lab.slots.reload(operation("reload", rollout="r-bad", epoch=9), older=False)
    assert [_contents(lab, slot) for slot in "ab"] == before
    assert [(await lab.slots.probe(slot)).passed for slot in "ab"] == [True, True]
    await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
    sent, lost = client.lost()
    assert (sent > 10, lost, client.alive) == (True, 0, True)


@pytest.mark.sweep
async def test_a_reload_killed_while_it_is_taken_back_is_taken_back_by_its_repeat(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    before = _contents(lab, "a")
    change_the_probes_password(lab)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.drivers.dying_agent", lab.folder, lab.tag, "reload", "1", "given"
    )
    assert await asyncio.wait_for(agent.wait(), PATIENCE) == -signal.SIGKILL
    lab.compose()
    with pytest.raises(Refused, match="is as it was before"):
        await lab.slots.reload(operation("reload"), older=False)
    assert _contents(lab, "a") == before
    assert not list(lab.root.glob("slots/*/conf.*"))


async def test_a_reload_that_is_taken_back_lets_in_again_whom_it_had_taken_out(lab: GatewayLab) -> None:  # noqa: F811
    await lab.running("1")
    without(lab, "user3")
    await lab.slots.reload(operation("reload", rollout="r-reload", epoch=9), older=False)
    assert not await is_let_in(lab, 3, PORTS["a"])
    other = await lab.slots.take_back(operation("back", rollout="r-back", epoch=10), "r-other")
    assert (other.slots, other.credentials) == ((), ())
    done = await lab.slots.take_back(operation("back", rollout="r-back", epoch=10), "r-reload")
    assert (done.slots, done.credentials) == (("a",), ("users",))
    assert await is_let_in(lab, 3, PORTS["a"])


@pytest.mark.sweep
async def test_sessions_of_removed_users_end_when_that_is_meant_and_no_others(lab: GatewayLab) -> None:  # noqa: F811
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))
    gone, stays = await lab.client(1).up(), await lab.client(2).up()
    stays.ping()
    without(lab, "user1")
    done = await lab.slots.reload(operation("reload", rollout="r-1"), older=False)
    assert (done.credentials, done.ended, done.staying, gone.alive) == (("users",), 0, 1, True)
    done = await lab.slots.reload(operation("reload"), older=False, end_removed=True)
    assert (done.credentials, done.ended, done.staying) == ((), 1, 0)
    await until(lambda: not gone.alive)
    assert not await is_let_in(lab, 1, 443)
    sent, lost = stays.lost()
    assert (sent > 5, lost, stays.alive) == (True, 0, True)


def add_user(lab: GatewayLab, name: bytes) -> None:  # noqa: F811
    """Have a user of that name log in with the password of the lab's users."""
    subprocess.run(
        [b"ocpasswd", b"-c", bytes(lab.folder / "users"), name],
        input=b"secret\nsecret\n", check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.sweep
async def test_a_user_with_a_name_beyond_ascii_is_ended_as_removed_only_once_no_list_may_name_it(
    lab: GatewayLab,  # noqa: F811
) -> None:
    """occtl 1.1.6 prints each byte beyond ASCII as the same one, so two names may be one in its answer."""
    add_user(lab, "jürgen".encode())
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    gone, listed = await lab.client(1).up(), await lab.client(2, more=("--user=jürgen",)).up()
    without(lab, "user1")
    done = await lab.slots.reload(operation("reload"), older=False, end_removed=True)
    assert (done.ended, listed.alive) == (1, True)
    await until(lambda: not gone.alive)
    chroot = lab.folders.of(slot).chroot
    for patterns, spared in {
        ("jürgen",): True,
        ("j?rg*",): True,
        ("vip-*", "j[!u]rgen"): True,
        ("g*",): False,
    }.items():
        ocserv = Ocserv(lab.login, Exempt(users=patterns))
        assert {one.exempt for one in await ocserv.sessions(chroot) or () if one.connected} == {spared}
    add_user(lab, "jörgen".encode())
    without(lab, "jürgen")
    done = await lab.slots.reload(operation("reload"), older=False, end_removed=True)
    assert (done.ended, listed.alive) == (0, True)
    without(lab, "jörgen")
    done = await lab.slots.reload(operation("reload"), older=False, end_removed=True)
    assert done.ended == 1
    await until(lambda: not listed.alive)


async def test_what_is_stopped_is_left_alone_and_starts_with_the_present_files(
    lab: GatewayLab,  # noqa: F811
) -> None:
    await lab.running("1")
    await lab.slots.stop(operation("stop"), "a")
    certificate = renew(lab)
    done = await lab.slots.reload(operation("reload"), older=False)
    assert (done.slots, done.state.instance("a").state) == ((), InstanceState.STOPPED)
    slot = await lab.running("1")
    assert await served(slot) == certificate


async def test_a_credential_may_have_any_name_that_a_template_can_say(lab: GatewayLab) -> None:  # noqa: F811
    kept = lab.admission.template.read_text()
    lab.admission.template.write_text(kept.replace("$credential_users", "$credential_VPN_users"))
    lab.compose(VPN_users="users")
    try:
        await lab.running("1")
        (lab.folder / "users").write_text((lab.folder / "users").read_text() + "# another line\n")
        assert (await lab.slots.observe()).unserved == ("VPN_users",)
    finally:
        lab.admission.template.write_text(kept)


@pytest.mark.sweep
async def test_a_revoked_client_certificate_is_refused_everywhere_and_a_list_that_ends_daemons_not_given(
    lab: GatewayLab,  # noqa: F811
) -> None:
    """A real daemon that asks for client certificates; whoever was let in before goes on."""
    asked = 'auth = "certificate"\ncert-user-oid = 2.5.4.3\nca-cert = $credential_ca\ncrl = $credential_crl'
    kept = lab.admission.template.read_text()
    lab.admission.template.write_text(kept.replace('auth = "plain[passwd=$credential_users]"', asked))
    for number in (1, 2):
        lab.certify_user(number)
    lab.revoke()
    lab.compose(ca="ca.pem", crl="crl")
    try:
        await serving_beside(lab)
        inside = await lab.client(1, more=lab.shown_by(1)).up()
        inside.ping()
        for port in PORTS.values():
            await (await lab.client(2, url_port=port, more=lab.shown_by(2)).up()).leave()
        lab.revoke(2)
        await lab.slots.reload(operation("reload"), older=False)
        for port in PORTS.values():
            with pytest.raises(AssertionError, match="the client ended"):
                await lab.client(2, url_port=port, more=lab.shown_by(2)).up()
        (lab.folder / "crl").write_text("nothing\n")
        (lab.folder / "crl").chmod(0o600)
        with pytest.raises(BadInput, match=r"credential crl \(file:.*/crl\): it holds no list"):
            await lab.slots.reload(operation("reload"), older=False)
        await asyncio.sleep(1)  # however fast all that was, its pings went on for a second
        sent, lost = inside.lost()
        assert (sent > 5, lost, inside.alive) == (True, 0, True)
    finally:
        lab.admission.template.write_text(kept)


def _contents(lab: GatewayLab, slot: str) -> dict[Path, bytes]:  # noqa: F811
    conf = lab.root / "slots" / slot / "conf"
    return {path: path.read_bytes() for path in conf.rglob("*") if path.is_file()}
