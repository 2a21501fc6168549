"""Releases of one version: which of them a rollback means, and how a person tells them apart."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from orchestrator.service.ways_back import WaysBack
from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.errors import BadInput, Refused
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.service.command_line import CommandLine
from tests.unit.fleets import fleet, gateway
from tests.unit.test_rebuilding import steered_by

REBUILT = "rebuilt"
ROLLBACK = ("rollback", "edge", "--reason", "users call")


def release(version: str, build: str = "") -> ReleaseRef:
    digest = digest_of(f"{version}{build}".encode())
    return ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)


OLD, OTHER, NEW = release("1.1.6"), release("1.1.6", REBUILT), release("1.3.0")
EDGE = fleet(gateway("edge-1"), gateway("edge-2"))


def short(one: ReleaseRef) -> str:
    return one.digest[:19]


def add(ledger: Ledger, one: ReleaseRef, channel: str = "stable") -> None:
    manifest = f'{{"channel": "{channel}"}}'
    ledger.add_release(
        one, source="http://repository", signers=("ana",), manifest_json=manifest, person="ada"
    )


def move(ledger: Ledger, kind: ChangeKind, to: Mapping[str, ReleaseRef]) -> str:
    """Write down a change that led these gateways there."""
    number, first = ledger.newest_number("edge") + 1, next(iter(to.values()))
    opening = ChangeOpening(
        key=f"change {number}",
        fleet="edge",
        kind=kind,
        requested_by="ada",
        reason="CVE-2030-1",
        release=first.version,
        release_digest=first.digest,
    )
    name = ledger.open_change(opening)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=name, releases=dict(to)))
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="every gateway answers"))
    return name


def everything_is_old(ledger: Ledger) -> None:
    """Let the kept window pass, so that a rollback needs the name of a release."""
    at = datetime.now(UTC) - timedelta(days=2)
    with ledger.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=at))
        connection.execute(update(tables.changes).values(ended=at))


@pytest.fixture
def promoted(ledger: Ledger) -> Ledger:
    """A first installation of 1.1.6 and a promotion of 1.3.0, long ago."""
    add(ledger, OLD)
    move(ledger, ChangeKind.INSTALL, {"edge-1": OLD})
    move(ledger, ChangeKind.UPGRADE, {"edge-1": NEW})
    everything_is_old(ledger)
    return ledger


async def test_an_offered_rollback_is_taken_though_another_release_has_the_version_of_known_good(
    penstock: CommandLine, api: httpx.AsyncClient, page: httpx.AsyncClient, promoted: Ledger
) -> None:
    """A machine added a second 1.1.6, and no surface took the rollback that each of them offered."""
    add(promoted, OTHER, "nightly")
    assert "penstock rollback edge --to 1.1.6 --reason" in (await penstock("status", "edge")).out
    for force in ((), ("--force",)):
        said = await penstock(*ROLLBACK, *force, "--to", "1.1.6")
        assert "edge-1 will serve 1.1.6" in said.err
    shown = (await api.get("/fleets/edge/rollback", params={"to": "1.1.6"})).json()
    by_digest = (await api.get("/fleets/edge/rollback", params={"to": OLD.digest})).json()
    assert shown["digest"] == by_digest["digest"]
    sheet = (await page.get("/fleets/edge/orders/roll_back?to=1.1.6")).text
    assert "edge-1 will serve 1.1.6" in sheet


async def test_where_several_of_a_version_were_known_good_the_offer_has_the_digest(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    add(ledger, OLD)
    add(ledger, OTHER)
    move(ledger, ChangeKind.INSTALL, {"edge-1": OTHER})
    move(ledger, ChangeKind.UPGRADE, {"edge-1": OLD})
    move(ledger, ChangeKind.UPGRADE, {"edge-1": NEW})
    everything_is_old(ledger)
    offered = f"penstock rollback edge --to {short(OLD)} --reason TEXT"
    assert offered in " ".join((await penstock("status", "edge")).out.split())
    said = await penstock(*ROLLBACK, "--to", short(OLD))
    assert "edge-1 will serve 1.1.6" in said.err
    assert (
        "edge-1 will serve 1.1.6"
        in (await page.get("/fleets/edge/orders/roll_back", params={"to": short(OLD)})).text
    )


async def test_a_version_of_several_known_good_is_refused_with_where_each_was_and_until_when(
    penstock: CommandLine, ledger: Ledger
) -> None:
    add(ledger, OLD)
    add(ledger, OTHER, "nightly")
    add(ledger, release("1.1.6", "of nobody"), "nightly")
    move(ledger, ChangeKind.INSTALL, {"edge-1": OLD, "edge-2": OTHER})
    move(ledger, ChangeKind.UPGRADE, {"edge-1": NEW})
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for force in ((), ("--force",)):
        said = await penstock(*ROLLBACK, *force, "--to", "1.1.6")
        text = " ".join(said.err.split())
        assert said.code == 2, said
        assert "2 releases that are called 1.1.6 were known-good of edge: " in text
        assert f"{short(OTHER)} of channel nightly is known-good of edge-2; " in text
        assert f"{short(OLD)} of channel stable was of edge-1 until {today} " in text
        option = " --force" if force else ""
        assert all(f"--to {short(one)}{option}" in text for one in (OLD, OTHER)), text


def test_no_other_release_stands_in_for_known_good_that_was_withdrawn(promoted: Ledger) -> None:
    add(promoted, OTHER)
    promoted.yank(OLD.digest, "leaks", "ada")
    assert WaysBack(promoted).release_called(EDGE, "1.1.6") == OLD


async def test_known_good_that_was_withdrawn_is_still_a_way_back_and_called_withdrawn(
    penstock: CommandLine, promoted: Ledger
) -> None:
    """Status offered it and the rollback was refused, with no other way: nothing takes a withdrawal back."""
    promoted.yank(OLD.digest, "leaks", "ada")
    named = await penstock(*ROLLBACK, "--to", "1.1.6")
    assert "edge-1 will serve 1.1.6; 1.1.6 was withdrawn: leaks" in named.err


def test_a_release_that_was_withdrawn_and_never_known_good_is_no_way_back(promoted: Ledger) -> None:
    add(promoted, release("1.2.0"))
    promoted.yank(release("1.2.0").digest, "leaks", "ada")
    with pytest.raises(Refused, match=r"release 1\.2\.0 was withdrawn: leaks"):
        WaysBack(promoted).release_called(EDGE, "1.2.0")


def test_a_version_of_several_that_were_never_known_good_is_no_way_back(promoted: Ledger) -> None:
    for build in ("a", "b"):
        add(promoted, release("1.2.0", build))
    promoted.record_states("edge", [steered_by("edge-1", "edge-2/1")], {})
    found = WaysBack(promoted).release_called(EDGE, "1.2.0")
    with pytest.raises(Refused, match=r"1\.2\.0 was never known-good here"):
        WaysBack(promoted).require_unpinned(EDGE, found, force=False)


def test_a_rollback_by_digest_is_offered_by_its_version_where_that_means_it_alone(ledger: Ledger) -> None:
    """A rollback that was given up is offered again; its change knows no other releases."""
    again = Offer(verb=Verb.ROLL_BACK, fleet="edge", release=short(OLD))
    add(ledger, OLD)
    move(ledger, ChangeKind.INSTALL, {"edge-1": OLD})
    add(ledger, OTHER)
    assert [one.release for one in WaysBack(ledger).offered(EDGE, (again,))] == ["1.1.6"]
    move(ledger, ChangeKind.UPGRADE, {"edge-1": OTHER})
    assert [one.release for one in WaysBack(ledger).offered(EDGE, (again,))] == [short(OLD)]


async def test_a_version_of_several_releases_is_refused_with_what_tells_them_apart(
    penstock: CommandLine, promoted: Ledger
) -> None:
    add(promoted, OTHER, "nightly")
    promoted.yank(OTHER.digest, "leaks", "ada")
    for command in (("release", "show"), ("release", "yank", "--reason", "leaks")):
        said = await penstock(*command, "1.1.6")
        text = " ".join(said.err.split())
        assert said.code == 2, said
        assert "1.1.6 fits 2 releases: " in text
        assert f"{short(OLD)} (channel stable, added {datetime.now(UTC):%Y-%m-%d} " in text
        assert f"{short(OTHER)} (channel nightly, added " in text
        assert "by ada, withdrawn)" in text
    assert (await penstock("release", "show", short(OTHER))).code == 0


def test_an_upgrade_to_a_version_of_several_releases_names_their_channels(promoted: Ledger) -> None:
    add(promoted, OTHER, "nightly")
    with pytest.raises(BadInput, match=r"channel nightly.*channel stable.*give the digest"):
        promoted.release("1.1.6", "ocserv")


async def test_a_pin_is_released_by_its_version_though_another_release_has_it(
    penstock: CommandLine, ledger: Ledger
) -> None:
    add(ledger, NEW)
    add(ledger, release("1.3.0", REBUILT))
    move(ledger, ChangeKind.INSTALL, {"edge-1": OLD})
    move(ledger, ChangeKind.UPGRADE, {"edge-1": NEW})
    move(ledger, ChangeKind.GO_BACK, {"edge-1": OLD})
    assert "penstock unpin edge --to 1.3.0 --reason TEXT" in (await penstock("status", "edge")).out
    said = await penstock("unpin", "edge", "--to", "1.3.0", "--reason", "mended")
    assert said.code == 0, said
