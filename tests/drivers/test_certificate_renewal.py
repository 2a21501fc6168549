"""The certificate that users see is renewed from files: proved first, laid down whole, killed anywhere."""

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path

import pytest
from typer.testing import CliRunner

from activities.drivers.certificate.folder import KEPT
from activities.drivers.certificate.settings import CertificateSettings
from orchestrator.cli import agent
from orchestrator.processes import certificate
from orchestrator.processes.agent_file import AgentSettings
from policies.model.errors import Conflict, Refused, Unavailable
from tests.drivers.certificates import MONTH, NAME, CertifiedHost, Dropping
from tests.drivers.dying_renewal import BEFORE_IT_COUNTS, WHEN_IT_COUNTS
from tests.drivers.test_index_renewal import verified
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE

DAY = timedelta(days=1)
UNITS = Path(__file__).parents[2] / "deploy/reloading"


@pytest.fixture
def dropping(tmp_path: Path) -> Dropping:
    return Dropping(tmp_path)


def test_what_is_dropped_counts_once_it_is_proved_and_lies_there_whole(dropping: Dropping) -> None:
    host = dropping.host
    first = dropping.drop()
    assert host.is_due()
    assert host.renewal.renew() == first.not_valid_after_utc
    assert (host.leaf, host.is_due(), host.left()) == (first, False, [])
    assert {path.stat().st_mode & 0o777 for path in host.current.iterdir()} == {0o600}
    second = dropping.drop(ends=MONTH + DAY)
    assert (host.is_due(), host.leaf) == (True, first)
    host.renewal.renew()
    assert (host.leaf, host.is_due()) == (second, False)


def test_three_generations_are_kept_and_no_more(dropping: Dropping) -> None:
    for days in range(5):
        dropping.drop(ends=MONTH + days * DAY)
        dropping.host.renewal.renew()
    kept = [path for path in dropping.host.settings.certificate_folder.iterdir() if path.name.isdecimal()]
    assert sorted(path.name for path in kept) == ["3", "4", "5"]
    assert len(kept) == KEPT


def damage(dropping: Dropping, how: str) -> None:
    match how:
        case "another name":
            dropping.drop("other.penstock.test", ends=2 * MONTH)
        case "expired":
            dropping.drop(begins=-2 * DAY, ends=-DAY)
        case "not yet":
            dropping.drop(begins=DAY, ends=2 * MONTH)
        case "no chain":
            dropping.drop(ends=2 * MONTH, by=EnterpriseCa(dropping.live / "stranger", "a stranger"))
        case "another key":
            kept = dropping.key.read_bytes()
            dropping.drop(ends=2 * MONTH)
            dropping.key.write_bytes(kept)
        case "ends sooner":
            dropping.drop(ends=DAY)
        case "key beside":
            dropping.drop(ends=2 * MONTH)
            dropping.chain.write_bytes(dropping.chain.read_bytes() + dropping.key.read_bytes())
        case _:
            dropping.chain.write_text("nothing\n")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("another name", rf"would not take it for {NAME}: Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("not yet", "certificate is not yet valid"),
        ("no chain", "unable to get local issuer certificate"),
        ("another key", "the key that came is another certificate's"),
        ("ends sooner", "ends at .* not later than the one in use"),
        ("key beside", "a key lies in one file with the certificate"),
        ("nothing", "no certificate and key in PEM"),
    ],
)
def test_what_users_would_not_take_changes_nothing_and_is_named(
    dropping: Dropping, how: str, said: str
) -> None:
    good = dropping.drop()
    dropping.host.renewal.renew()
    damage(dropping, how)
    with pytest.raises(Refused, match=said):
        dropping.host.renewal.renew()
    assert dropping.host.leaf == good
    dropping.drop(ends=3 * MONTH)
    dropping.host.renewal.renew()
    assert dropping.host.leaf != good


@pytest.mark.sweep
@pytest.mark.parametrize("line", [*BEFORE_IT_COUNTS, *WHEN_IT_COUNTS])
def test_killed_at_any_line_the_old_one_or_the_new_one_counts_and_the_repeat_ends_the_same(
    dropping: Dropping, line: str
) -> None:
    host, old = dropping.host, dropping.drop()
    host.renewal.renew()
    new = dropping.drop(ends=2 * MONTH)
    host.killed_at(line)
    assert host.leaf == (new if line in WHEN_IT_COUNTS else old)
    if host.is_due():
        host.renewal.renew()
    assert (host.leaf, host.is_due()) == (new, False)
    third = dropping.drop(ends=3 * MONTH)
    host.renewal.renew()
    assert (host.leaf, host.left()) == (third, [])


def test_it_is_due_at_two_thirds_of_its_life_and_never_where_it_has_just_come(dropping: Dropping) -> None:
    host = dropping.host
    dropping.drop(begins=-timedelta(0), ends=MONTH)
    host.renewal.renew()
    assert [host.is_due(days=days) for days in (1, 19.9, 22.6)] == [False, False, True]
    dropping.drop(begins=-10 * MONTH, ends=MONTH + DAY)
    host.renewal.renew()
    assert not host.is_due()


def test_a_name_that_was_added_is_asked_for_at_once_and_one_below_a_star_is_there(
    dropping: Dropping,
) -> None:
    dropping.drop(f"*.{NAME.partition('.')[2]}")
    dropping.host.renewal.renew()
    assert not dropping.host.is_due()
    more = CertifiedHost(dropping.host.folder, dropping.source, dropping.corp.roots, "new.vpn.penstock.test")
    assert more.is_due()


def test_who_means_it_gets_a_certificate_that_ends_sooner(dropping: Dropping) -> None:
    dropping.drop()
    dropping.host.renewal.renew()
    sooner = dropping.drop(ends=DAY)
    with pytest.raises(Refused, match="--even-if-older takes it"):
        dropping.host.renewal.renew()
    dropping.host.renewal.renew(older=True)
    assert dropping.host.leaf == sooner


def test_a_disk_that_takes_nothing_is_named_and_the_old_one_counts(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = dropping.drop()
    dropping.host.renewal.renew()
    dropping.drop(ends=2 * MONTH)

    def full(*_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr("activities.drivers.certificate.folder.write_private", full)
    with pytest.raises(Unavailable, match="certificate cannot be written: No space left on device"):
        dropping.host.renewal.renew()
    assert dropping.host.leaf == good
    monkeypatch.undo()
    (dropping.host.current / "chain.pem").write_text("spoilt\n")
    assert dropping.host.is_due()
    dropping.host.renewal.renew()
    assert dropping.host.leaf != good


def test_a_wait_that_was_noted_under_a_clock_far_ahead_is_not_waited_for(dropping: Dropping) -> None:
    dropping.host.renewal.note(Unavailable("nobody answers"), datetime.now(UTC) + timedelta(days=365))
    assert dropping.host.is_due()


def test_an_agents_file_whose_credentials_do_not_name_what_is_renewed_is_refused(dropping: Dropping) -> None:
    content = dropping.host.settings.model_dump(mode="json")
    chain = f"file:{dropping.host.current}/chain.pem"
    AgentSettings.model_validate({**content, "credentials": {"certificate": chain}})
    with pytest.raises(ValueError, match=f"name {chain} in credentials"):
        AgentSettings.model_validate({**content, "credentials": {"certificate": "file:/etc/vpn.pem"}})


async def test_while_somebody_else_renews_it_nothing_is_noted(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "LOOK", timedelta(0))
    dropping.drop()
    asked = asyncio.Semaphore(0)

    async def ask() -> None:
        asked.release()
        await certificate.ask_when_due(dropping.host.file)

    with dropping.host.renewal._folder.alone():
        keeping = asyncio.create_task(certificate.keep_renewed(dropping.host.renewal, ask))
        for _ in range(2):
            await asyncio.wait_for(asked.acquire(), PATIENCE)
        keeping.cancel()
        await asyncio.wait([keeping])
    assert dropping.host.renewal.failing == ""


def test_two_processes_never_renew_the_same_certificate_at_once(dropping: Dropping) -> None:
    dropping.drop()
    folder = dropping.host.renewal._folder
    with folder.alone(), pytest.raises(Conflict, match="another process renews"):
        dropping.host.renewal.renew()


async def test_an_agent_asks_when_it_is_due_notes_what_fails_and_waits_longer_each_time(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "LOOK", timedelta(0))
    host, asked = dropping.host, asyncio.Semaphore(0)

    async def ask() -> None:
        asked.release()
        raise Unavailable("nobody answers")

    keeping = asyncio.create_task(certificate.keep_renewed(host.renewal, ask))
    await asked.acquire()
    with pytest.raises(TimeoutError):  # it looks all the time, and asks no second time
        await asyncio.wait_for(asked.acquire(), 0.1)
    keeping.cancel()
    assert host.renewal.failing.endswith("UTC: nobody answers")
    assert [host.is_due(minutes=minutes) for minutes in (4, 11)] == [False, True]
    since = datetime.now(UTC)
    again = [host.renewal.note(Unavailable("still"), since).again - since for _ in range(9)]
    assert again == sorted(again)
    assert timedelta(hours=6) <= again[-1] <= timedelta(hours=12)
    dropping.drop()
    host.renewal.renew()
    assert host.renewal.failing == ""


@pytest.mark.sweep
async def test_an_agent_has_a_process_of_its_own_get_the_certificate(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    with pytest.raises(Unavailable, match=r"fullchain.pem cannot be read|privkey.pem cannot be read"):
        await certificate.ask_when_due(dropping.host.file)
    dropped = dropping.drop()
    await certificate.ask_when_due(dropping.host.file)
    assert dropping.host.leaf == dropped


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"names": ["vpn.example"]}, "exactly one of them"),
        (
            {"names": ["VPN"], "file": {"certificate": "a", "key": "b"}},
            "neither an address nor a name",
        ),
        ({"names": ["vpn.example"], "acme": {"directory": "http://ca.example"}}, "no https address"),
        ({"names": ["vpn.example"], "acme": {"directory": "https://ca.example"}}, "http_port, or dns_hook"),
        (
            {"names": ["*.example"], "acme": {"directory": "https://ca.example", "http_port": 80}},
            "dns-01 only",
        ),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_with_what_to_say(
    given: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        CertificateSettings.model_validate(given)


def test_the_units_that_have_renewed_certificates_served_are_what_systemd_understands(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/penstock", "/bin/true"))
    assert [verified(tmp_path / unit.name) for unit in UNITS.iterdir()] == ["", ""]


def test_a_person_on_the_host_is_told_until_when_it_is_good_and_why_no_other_came(
    dropping: Dropping,
) -> None:
    def certify(*more: str) -> str:
        found = CliRunner().invoke(agent.app, ["certify", "--config", str(dropping.host.file), *more])
        assert found.exception is None, found.output
        return found.output

    dropping.drop()
    assert "gw-1 has a new certificate, good until " in certify()
    assert "gw-1 has a certificate that is good until " in certify()
    dropping.host.renewal.note(Unavailable("nobody answers"), datetime.now(UTC))
    assert re.search(r"It is not renewed since .* UTC: nobody answers; --now asks at once", certify())
    dropping.drop(ends=2 * MONTH)
    assert "gw-1 has a new certificate" in certify("--now")
