"""`penstock check`: every file of an installation, read offline."""

import json
import os
import tempfile
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.noticing.rules import RulesFile
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from tests.fakes.openpgp import Crafted
from tests.service.command_line import CommandLine, Ended
from tests.service.conftest import FLEETS, installed
from tests.service.test_api import added

GATES = Path("deploy/prometheus/gates.yaml").absolute()
PAGE = Path("docs/relay.md").absolute()
FOLDER = Path("deploy/examples").absolute()
SOUND = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//penstock//tests//EN\r
BEGIN:VEVENT\r
UID:1\r
DTSTAMP:20260101T000000Z\r
DTSTART;VALUE=DATE:20261224\r
DTEND;VALUE=DATE:20261227\r
SUMMARY:holidays\r
END:VEVENT\r
END:VCALENDAR\r
"""
WORKER = 12345
"""The user who runs the worker."""
NOTICES = """\
apiVersion: penstock/v1
sinks:
- {name: hook, kind: webhook, url: "http://127.0.0.1:9/", key_file: hook.key}
routes:
- {levels: [page], sinks: [hook]}
"""


def checked(*arguments: str) -> Ended:
    """Run the command in this process, for the many files that it is shown."""
    result = CliRunner().invoke(app, ["check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return Ended(result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("fleet.yaml", "name: edge\nproduct: ocserv\ngateways: []\nlimit: {}\n", "line 4"),
        (
            "fleet.yaml",
            FLEETS.format(name="edge").replace("port: 4442", "port: 4441"),
            "two slots have the same port",
        ),
        ("fleet.yaml", FLEETS.format(name="edge").replace("10.0.1.0", "10.0.0.0"), "share a pool"),
        ("fleet.yaml", FLEETS.format(name="edge") + "limits: {lease: 30d}\n", "lease"),
        ("fleet.yaml", FLEETS.format(name="edge") + "limits: {drain_deadline: 8}\n", "drain_deadline"),
        ("fleet.yaml", FLEETS.format(name="edge") + "limits: {drain_deadline: 0s}\n", "drain_deadline"),
        ("fleet.yaml", FLEETS.format(name="edge") + "limits: {steps: ['50%', '25%']}\n", "steps"),
        ("fleet.yaml", FLEETS.format(name="edge") + "limits: {steps: ['250%']}\n", "steps"),
        ("fleet.yaml", "name: [\n", "line"),
        ("fleet.yaml", "", "empty"),
        ("fleet.yaml", "name: edge\nname: core\n", "line 2"),
        ("fleet.yaml", "a: &a [1]\nb: *a\n", "line"),
        ("people.yaml", "people: []\n", "apiVersion"),
        ("people.yaml", "apiVersion: penstock/v2\n", "penstock/v1"),
        ("people.yaml", "apiVersion: penstock/v1\npeople:\n  - name: Ana\n", "line 3"),
        (
            "people.yaml",
            "apiVersion: penstock/v1\npeople:\n  - {name: ana, roles: {edge: [king]}}\n",
            "line 3",
        ),
        ("people.yaml", "apiVersion: penstock/v1\npeople:\n  - name: penstock\n", "penstock"),
        ("people.yaml", "apiVersion: penstock/v1\npeople:\n  - name: ana\n  - name: ana\n", "ana"),
        ("trust.yaml", "version: 1\nversion: 2\n", "line 2"),
        ("trust.yaml", "version: 1\nrules: {}\n", "line"),
        ("trust.yaml", "version: one\n", "version"),
        ("gates.yaml", "name: x\n", "no gate is required"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_its_place(
    tmp_path: Path, name: str, content: str, place: str
) -> None:
    (tmp_path / name).write_text(content)
    said = checked(str(tmp_path / name), "-o", "json")
    assert said.code == 2, said.out
    [found] = json.loads(said.out)["data"]
    assert place in found["wrong"]


def test_a_pinned_key_that_cannot_sign_is_named_with_what_mends_it(tmp_path: Path) -> None:
    """The file stays in use; whoever checks it has time to have the key extended."""
    old, good = Crafted(hashed_by=2), Crafted()
    pinned = {}
    for name, key in (("old", old), ("ana", good)):
        (tmp_path / f"{name}.pgp").write_bytes(key.content())
        pinned[name] = {"cert": f"{name}.pgp", "fingerprint": key.primary.fingerprint}
    policy = {"version": 1, "openpgp": pinned, "rules": []}
    (tmp_path / "trust.yaml").write_text(json.dumps(policy))
    said = checked(str(tmp_path / "trust.yaml"), "-o", "json")
    assert said.code == 2, said.out
    [found] = json.loads(said.out)["data"]
    assert "the OpenPGP key old signs" in found["wrong"]
    assert f"`gpg --quick-set-expire {old.primary.fingerprint} 5y`" in found["wrong"]
    assert "ana" not in found["wrong"]


async def test_files_that_are_sound_are_said_to_be(penstock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEETS.format(name="edge"))
    said = await penstock("check", str(tmp_path / "fleet.yaml"), str(GATES))
    assert said.code == 0, said.out
    assert said.out.count(" ok") == 2


async def test_without_arguments_every_file_of_the_settings_is_read(
    penstock: CommandLine, service: Service, tmp_path: Path
) -> None:
    del service  # its files are there
    environment = {
        "PENSTOCK_STATE": str(tmp_path),
        "PENSTOCK_FLEET": str(tmp_path / "fleets"),
        "PENSTOCK_GATES": str(GATES),
        "PENSTOCK_TRUST": str(tmp_path / "trust.yaml"),
    }
    said = await penstock("check", "-o", "json", **environment)
    found = {Path(one["file"]).name: one["wrong"] for one in json.loads(said.out)["data"]}
    assert found["edge.yaml"] is None
    assert found["core.yaml"] is None
    assert found["gates.yaml"] is None
    assert "trust.yaml" in found["trust.yaml"]
    (tmp_path / "penstock.toml").write_text('fleeet = "x"\n')
    said = await penstock("check", "-o", "name", **environment)
    assert (said.code, Path(said.out.strip()).name) == (2, "penstock.toml")


@pytest.mark.parametrize("name", ["agent.yaml", "gw-1.yaml"])
def test_an_agents_file_is_read_as_one_by_its_name_or_its_keys(tmp_path: Path, name: str) -> None:
    page = PAGE.read_text()
    (tmp_path / name).write_text(page.partition("```yaml\n")[2].partition("```")[0])
    said = checked(str(tmp_path / name))
    assert said.code == 0, said.out
    (tmp_path / name).write_text("temporal_address: relay.example:7243\n")
    said = checked(str(tmp_path / name))
    assert (said.code, "the file lacks the key gateway" in said.out) == (2, True)


@pytest.mark.parametrize("name", ["cluster.yaml", "west.yaml"])
def test_a_clusters_file_is_read_as_one_by_its_name_or_its_keys(tmp_path: Path, name: str) -> None:
    content = (FOLDER / "cluster.yaml").read_text()
    (tmp_path / name).write_text(content)
    said = checked(str(tmp_path / name))
    assert said.code == 0, said.out
    (tmp_path / name).write_text(content.replace("channel:", "chanel:"))
    said = checked(str(tmp_path / name))
    assert (said.code, "chanel" in said.out) == (2, True)


@pytest.mark.parametrize(
    ("content", "lacks"),
    [
        ("apiVersion: penstock/v1\nsinks: [{}]\n", "sinks[0]"),
        ("apiVersion: penstock/v1\nmatrix: {}\n", "the key token"),
    ],
)
def test_a_file_of_another_name_is_read_as_what_its_keys_say(
    tmp_path: Path, content: str, lacks: str
) -> None:
    (tmp_path / "oncall.yaml").write_text(content)
    said = checked(str(tmp_path / "oncall.yaml"), "-o", "json")
    [found] = json.loads(said.out)["data"]
    assert lacks in found["wrong"]


@pytest.mark.parametrize(
    ("calendar", "wrong"),
    [(None, "holidays.ics cannot be read"), ("BEGIN:NOTHING\n", "holidays.ics"), (SOUND, None)],
    ids=["away", "broken", "sound"],
)
def test_the_calendars_of_a_fleet_are_read_with_its_file(
    tmp_path: Path, calendar: str | None, wrong: str | None
) -> None:
    freezes = "freezes:\n- {name: holidays, ics: holidays.ics, tz: UTC}\n"
    (tmp_path / "fleet.yaml").write_text(FLEETS.format(name="edge") + freezes)
    if calendar is not None:
        (tmp_path / "holidays.ics").write_text(calendar)
    said = checked(str(tmp_path / "fleet.yaml"), "-o", "json")
    [found] = json.loads(said.out)["data"]
    assert (wrong in found["wrong"]) if wrong is not None else (found["wrong"] is None), found


async def test_the_keys_of_sinks_are_read_with_an_installations_notices(
    penstock: CommandLine, service: Service, tmp_path: Path
) -> None:
    del service  # its files are there
    (tmp_path / "notices.yaml").write_text(NOTICES)
    environment = {
        "PENSTOCK_STATE": str(tmp_path),
        "PENSTOCK_FLEET": str(tmp_path / "fleets"),
        "PENSTOCK_NOTICES": str(tmp_path / "notices.yaml"),
    }
    said = await penstock("check", "-o", "json", **environment)
    found = {Path(one["file"]).name: one["wrong"] for one in json.loads(said.out)["data"]}
    assert "sink hook: " in found["notices.yaml"]
    assert "hook.key" in found["notices.yaml"]
    (tmp_path / "hook.key").write_text("k" * 64)
    (tmp_path / "hook.key").chmod(0o600)
    said = await penstock("check", "-o", "json", **environment)
    found = {Path(one["file"]).name: one["wrong"] for one in json.loads(said.out)["data"]}
    assert found["notices.yaml"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks for another user")
@pytest.mark.parametrize(("owner", "wrong"), [(WORKER, None), (0, "hook.key")])
def test_a_sinks_key_belongs_to_the_worker_and_to_nobody_else_also_where_root_checks(
    monkeypatch: pytest.MonkeyPatch, owner: int, wrong: str | None
) -> None:
    """newcomer 7: documents said `chown penstock`, and `penstock check` said `chown 0`."""
    with tempfile.TemporaryDirectory() as made:  # the worker reads below it, and not below pytest's folders
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        os.chown(folder / "state", WORKER, WORKER)
        (folder / "notices.yaml").write_text(NOTICES)
        (folder / "hook.key").write_text("k" * 64)
        (folder / "hook.key").chmod(0o600)
        os.chown(folder / "hook.key", owner, owner)
        monkeypatch.setenv("PENSTOCK_STATE", str(folder / "state"))
        monkeypatch.setenv("PENSTOCK_NOTICES", str(folder / "notices.yaml"))
        found = json.loads(checked("-o", "json").out)["data"]
        assert os.geteuid() == os.getegid() == 0
    said = next(one["wrong"] for one in found if one["file"].endswith("notices.yaml"))
    assert (wrong in said) if wrong is not None else (said is None), said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("prometheus_token", "", "is not one line of printable characters"),
        ("prometheus_authority", "no certificate", "has no certificate in PEM"),
        ("prometheus_certificate", "no certificate", "cannot be read"),
    ],
)
async def test_what_is_shown_to_prometheus_is_checked_before_any_server_is_asked(
    penstock: CommandLine, tmp_path: Path, name: str, content: str, said: str
) -> None:
    """Case 06, newcomer 11."""
    file = tmp_path / "of-prometheus"
    file.write_text(content)
    file.chmod(0o600)
    found = await penstock("check", "-o", "json", **{f"PENSTOCK_{name.upper()}": str(file)})
    (row,) = (one for one in json.loads(found.out)["data"] if one["file"] == str(file))
    assert said in row["wrong"], row
    assert found.code == 2


async def test_the_headers_for_prometheus_are_checked(penstock: CommandLine) -> None:
    headers = {"PENSTOCK_PROMETHEUS_HEADERS": '{"Authorization": "Bearer x"}'}
    found = await penstock("check", "-o", "json", **headers)
    wrong = [one["wrong"] or "" for one in json.loads(found.out)["data"]]
    assert any("write the token into a file, prometheus_token" in one for one in wrong), wrong


@pytest.mark.parametrize(
    ("name", "content"),
    [("gates.yaml", GATES.read_text()), ("notices.yaml", "apiVersion: penstock/v1\nsinks: []\nroutes: []\n")],
)
def test_what_decides_by_whom_changes_are_judged_and_reported_is_its_owners_alone(
    tmp_path: Path, name: str, content: str
) -> None:
    """S7, the same kind: another user could write what every plan is judged by, or where notices go."""
    file = tmp_path / name
    file.write_text(content)
    assert checked(str(file), "-o", "json").code == 0
    file.chmod(0o666)
    said = checked(str(file), "-o", "json")
    assert (said.code, "chmod go-w" in json.loads(said.out)["data"][0]["wrong"]) == (2, True)


def test_notices_that_others_may_write_are_read_by_no_worker(tmp_path: Path) -> None:
    file = tmp_path / "notices.yaml"
    file.write_text("apiVersion: penstock/v1\nsinks: []\nroutes: []\n")
    file.chmod(0o666)
    rules = RulesFile(file)
    assert rules.rules() is None
    assert "chmod go-w" in str(rules.wrong())


async def test_no_plan_is_made_by_gates_that_others_may_write(tmp_path: Path, ledger: Ledger) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text(GATES.read_text())
    gates.chmod(0o666)
    added(ledger, "ocserv", "1.3.0")
    settings = installed(tmp_path).model_copy(update={"gates": gates})
    service = (await compose(settings)).service
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(tmp_path / "penstock.sock"), verify=False)
    async with (
        serving(service, socket_at(tmp_path / "penstock.sock")),
        httpx.AsyncClient(transport=transport, base_url="http://penstock/v1", timeout=60) as api,
    ):
        answer = await api.post("/plans", json={"fleet": "edge", "to": "1.3.0"})
    assert "chmod go-w" in answer.text, answer.text


@pytest.mark.parametrize(
    "setting", ["dns: [10.0.0.300]", "route: [nonsense]", "max-clients: 5", "mtu: 1", "no-such-key: 1"]
)
def test_a_setting_that_no_gateway_takes_is_named_with_its_line(tmp_path: Path, setting: str) -> None:
    file = tmp_path / "fleet.yaml"
    text = FLEETS.format(name="edge")
    file.write_text(text + "settings:\n  " + setting + "\n")
    ended = checked(str(file), "-o", "json")
    [found] = json.loads(ended.out)["data"]
    assert ended.code == 2
    assert (
        f"{file}, line {len(text.splitlines()) + 2}: settings: {setting.partition(':')[0]} " in found["wrong"]
    )


def test_a_setting_of_one_gateway_that_no_gateway_takes_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    text = FLEETS.format(name="edge")
    file.write_text(text + "    settings: {mtu: 1}\n")
    ended = checked(str(file), "-o", "json")
    [found] = json.loads(ended.out)["data"]
    assert ended.code == 2
    assert f"{file}, line {len(text.splitlines()) + 1}: settings: mtu 1 is not 576" in found["wrong"]
