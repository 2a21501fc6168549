"""Desired state: folders of descriptions and upgrades, compared and applied on a real ledger."""

import asyncio
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import yaml

from orchestrator.service.background import LOOKS
from orchestrator.service.changes import ChangeService
from orchestrator.service.desired import DescriptionApplied
from orchestrator.service.foreign_files import ReadText, read
from orchestrator.service.planning import PlanService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.desired import AppliedKind, Compared, Text
from policies.model.errors import Conflict, Refused
from policies.model.fleet import Fleet
from policies.model.people import Caller, Role, Via
from policies.model.plan import ReleaseRef
from policies.model.refusals import ApprovalRequired
from policies.model.value import digest_of
from tests.fakes.gateway import FakeGateway
from tests.sampled import sampled
from tests.service.command_line import CommandLine
from tests.service.conftest import FLEETS
from tests.service.test_api import added, token

EDGE = FLEETS.format(name="edge")
SECOND = """\
  - name: edge-2
    addresses: [192.0.2.2]
    slots:
      - {name: a, port: 4441, device: oca, pool4: 10.0.2.0/24}
      - {name: b, port: 4442, device: ocb, pool4: 10.0.3.0/24}
"""
UPGRADE = """\
# what edge is to run
apiVersion: penstock/v1
kind: Upgrade
fleet: edge
release: {digest}  # the digest counts
version: "{version}"
reason: patches
start: {start}
"""


def git(folder: Path, *words: str) -> str:
    who = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for role in ("AUTHOR", "COMMITTER"):
        who |= {f"GIT_{role}_NAME": "ana", f"GIT_{role}_EMAIL": "ana@example.org"}
    command = ["git", "-C", os.fspath(folder), *words]
    done = subprocess.run(command, env=os.environ | who, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(folder: Path, message: str) -> str:
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)
    return git(folder, "rev-parse", "HEAD")


def reference(digest: str, version: str) -> ReleaseRef:
    return ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)


def changed(
    ledger: Ledger,
    key: str,
    release: ReleaseRef,
    outcome: Outcome | None,
    *,
    kind: ChangeKind = ChangeKind.UPGRADE,
    person: str = "ana",
    gateways: tuple[str, ...] = ("edge-1",),
    moves: bool = True,
) -> str:
    """Have a change in the ledger that ended so; return its name."""
    opening = ChangeOpening(
        key=key,
        fleet="edge",
        kind=kind,
        requested_by=person,
        reason=f"reason of {key}",
        release=release.version,
        release_digest=release.digest,
    )
    name = ledger.open_change(opening)
    if moves:
        releases = dict.fromkeys(gateways, release)
        ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=name, releases=releases))
    if outcome is not None:
        ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence=f"end of {key}"))
    return name


def leaves(ledger: Ledger, cause: str, to: ReleaseRef) -> str:
    """Have a person begin to take that change back; return the name of the rollback."""
    opening = ChangeOpening(
        key=f"back from {cause}",
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        requested_by="ben",
        reason="calls drop",
        release="known-good",
        cause=cause,
    )
    name = ledger.open_change(opening)
    batch = KnownGoodBatch(fleet="edge", change=name, releases={"edge-1": to}, back=True)
    ledger.record_known_good_batch(batch)
    return name


def left(ledger: Ledger, cause: str, to: ReleaseRef) -> None:
    """Have a person take that change back."""
    name, sentence = leaves(ledger, cause, to), "1 gateway is back"
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.ROLLED_BACK, sentence=sentence))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that describes edge as it is described already."""
    found = tmp_path / "wanted"
    found.mkdir()
    (found / "fleet.yaml").write_text(EDGE)
    return found


@pytest.fixture
def old(ledger: Ledger) -> ReleaseRef:
    """The release that edge is on."""
    found = reference(added(ledger, "ocserv", "1.3.0"), "1.3.0")
    changed(ledger, "first", found, Outcome.PROMOTED, kind=ChangeKind.INSTALL)
    return found


@pytest.fixture
def new(ledger: Ledger, old: ReleaseRef) -> ReleaseRef:
    """One that edge is not on."""
    del old
    return reference(added(ledger, "ocserv", "1.4.0"), "1.4.0")


def asks_for(folder: Path, release: ReleaseRef, start: str = "on-approval") -> Path:
    file = folder / "upgrade.yaml"
    file.write_text(UPGRADE.format(digest=release.digest, version=release.version, start=start))
    return file


async def compared(penstock: CommandLine, folder: Path) -> tuple[int, dict[str, Any]]:
    said = await penstock("diff", str(folder), "-o", "json")
    assert said.code in {0, 6, 10}, said.err
    return said.code, json.loads(said.out)["data"][0]


async def test_the_same_commit_applied_twice_changes_nothing(
    penstock: CommandLine, folder: Path, ledger: Ledger, tmp_path: Path, old: ReleaseRef
) -> None:
    (folder / "fleet.yaml").write_text(f"# reviewed\n{EDGE}")
    asks_for(folder, old)
    commit = committed(folder, "edge: say who reads it")
    first = await penstock("apply", str(folder))
    assert first.code == 0, first.err + first.out
    assert "the description is in force, as revision 1" in first.out
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == f"# reviewed\n{EDGE}"
    revision = ledger.newest_revision("edge", AppliedKind.DESCRIPTION)
    assert revision is not None
    assert (revision.number, revision.commit, revision.author) == (1, commit, "ana <ana@example.org>")
    before = (ledger.audit_head(), (tmp_path / "fleets" / "edge.yaml").stat().st_mtime_ns)
    second = await penstock("apply", str(folder))
    assert second.code == 0, second.err
    assert "the description is as the file says" in second.out
    assert "the fleet's known-good is 1.3.0" in second.out
    assert (ledger.audit_head(), (tmp_path / "fleets" / "edge.yaml").stat().st_mtime_ns) == before


async def test_a_difference_ends_with_ten_and_nothing_is_changed_by_looking(
    penstock: CommandLine, folder: Path, ledger: Ledger, tmp_path: Path
) -> None:
    (folder / "fleet.yaml").write_text(EDGE + SECOND)
    head = ledger.audit_head()
    said = await penstock("diff", str(folder))
    assert said.code == 10, said.err
    assert "gateway edge-2 joins, at 192.0.2.2" in said.out
    assert "edge-1, edge-2: no release so far" in said.out
    assert ledger.audit_head() == head
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == EDGE


@pytest.mark.sweep
async def test_nobody_waits_for_comparisons_who_asks_something_else(
    penstock: CommandLine, folder: Path, ledger: Ledger
) -> None:
    del ledger
    ended = threading.Event()
    waiting = [asyncio.create_task(LOOKS.run(ended.wait)) for _ in range(8)]
    comparing = asyncio.create_task(penstock("diff", str(folder)))
    try:
        assert (await penstock("fleet", "list")).code == 0
        assert (await penstock("history", "edge")).code == 0
        assert not comparing.done()
    finally:
        ended.set()
    assert (await comparing).code in {0, 6, 10}
    await asyncio.gather(*waiting)


async def test_a_broken_file_refuses_the_whole_folder_before_anything_changes(
    penstock: CommandLine, folder: Path, tmp_path: Path
) -> None:
    (folder / "fleet.yaml").write_text(f"# new\n{EDGE}")
    (folder / "other.yaml").write_text(FLEETS.format(name="core").replace("gateways:", "gatevays:"))
    said = await penstock("apply", str(folder))
    assert said.code == 2
    assert f"{folder}/other.yaml, line 4: the file has no key gatevays; did you mean gateways?" in said.err
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == EDGE


async def test_an_edit_on_the_control_host_is_said_and_replaced_only_on_purpose(
    penstock: CommandLine, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "fleets" / "edge.yaml"
    assert (await penstock("apply", str(folder))).code == 6  # no gateway has a release that others could get
    place.write_text(EDGE + "approvals: 1\n")
    said = await penstock("diff", str(folder))
    assert "EDITED      it was edited by hand since revision 1 was applied" in said.out
    refused = await penstock("apply", str(folder))
    assert refused.code == 5, refused.out
    assert "edited on the orchestrator's host since revision 1" in refused.err
    assert place.read_text() == EDGE + "approvals: 1\n"
    (folder / "fleet.yaml").write_text(EDGE + "approvals: 2\n")
    meant = await penstock("apply", str(folder), "--replace-edited")
    assert "as revision 2" in meant.out, meant.err
    assert place.read_text() == EDGE + "approvals: 2\n"


@pytest.mark.sweep
async def test_a_commit_that_undoes_a_rollback_is_refused_until_a_person_says_so(
    penstock: CommandLine, folder: Path, ledger: Ledger, new: ReleaseRef
) -> None:
    name = changed(ledger, "bad", new, Outcome.ROLLED_BACK, moves=False)
    asks_for(folder, new)
    committed(folder, "edge: 1.4.0")
    assert (await penstock("apply", str(folder), "--even-if-older")).code == 5
    refused = await penstock("apply", str(folder))
    assert refused.code == 5
    assert f"edge is pinned against 1.4.0: {name} went back" in refused.err
    assert "end of bad" in refused.err
    assert "Next: penstock unpin edge --to 1.4.0 --reason TEXT (a person says so)" in refused.err
    code, found = await compared(penstock, folder)
    assert (code, found["upgrade"]["state"]) == (10, "pinned")
    status = await penstock("status", "edge")
    assert f"PINNED     against 1.4.0: {name} went back" in status.out

    released = await penstock("unpin", "edge", "--reason", "the network was at fault")
    assert released.code == 0, released.err
    assert (await compared(penstock, folder))[1]["upgrade"]["state"] == "wanted"
    assert "PINNED" not in (await penstock("status", "edge")).out
    entry = [one for one in ledger.audit_entries() if one.action == "pin released"]
    assert [(one.person, one.subject, one.fleet) for one in entry] == [("root", name, "edge")]
    changed(ledger, "again", new, Outcome.ROLLED_BACK, moves=False)
    assert (await compared(penstock, folder))[1]["upgrade"]["state"] == "pinned"


async def test_what_the_fleet_left_last_is_pinned_and_not_the_canary_that_failed_before(
    penstock: CommandLine, ledger: Ledger, old: ReleaseRef, new: ReleaseRef
) -> None:
    async def shown() -> str:
        return " ".join((await penstock("status", "edge")).out.split())

    promoted = changed(ledger, "good", new, Outcome.PROMOTED)
    newer = new.model_copy(update={"digest": digest_of(b"newer"), "version": "1.5.0"})
    changed(ledger, "canary", newer, Outcome.ROLLED_BACK, moves=False)
    assert "against 1.5.0" in (await penstock("status", "edge")).out
    back = leaves(ledger, promoted, old)
    assert f"against 1.4.0: {promoted} is being taken back by ben since" in await shown()
    ledger.close_change(ChangeEnding(change=back, outcome=Outcome.ROLLED_BACK, sentence="1 gateway is back"))
    assert f"against 1.4.0: {promoted} was taken back by ben" in await shown()
    assert "1.4.0" in (await penstock("unpin", "edge", "--reason", "the phones were at fault")).out
    assert "against 1.5.0" in (await penstock("status", "edge")).out
    changed(ledger, "again", new, Outcome.PROMOTED)
    assert "PINNED" not in (await penstock("status", "edge")).out


async def test_a_machine_neither_releases_a_pin_nor_starts_what_is_pinned(
    api: httpx.AsyncClient, ledger: Ledger, new: ReleaseRef
) -> None:
    changed(ledger, "bad", new, Outcome.ROLLED_BACK, moves=False)
    shown = token(ledger, Role.OPERATOR, Role.CI)
    asked = {"reason": "always"}
    answer = await api.post("/fleets/edge/unpin", json=asked, headers=shown | {"Idempotency-Key": "1"})
    assert answer.status_code == 403
    assert "robot is a machine; only people release pins of edge" in answer.json()["detail"]
    file = {"path": "upgrade.yaml", "text": UPGRADE.format(digest=new.digest, version="1.4.0", start="never")}
    answer = await api.post(
        "/fleets/edge/upgrade", json={"file": file}, headers=shown | {"Idempotency-Key": "2"}
    )
    assert answer.json()["exit_code"] == 5, answer.text
    assert "edge is pinned against 1.4.0" in answer.json()["detail"]


@pytest.fixture
def twice_left(ledger: Ledger, old: ReleaseRef, new: ReleaseRef) -> ReleaseRef:
    """A release that was known-good before a promotion of today, and from which people went back since."""
    bad = changed(ledger, "bad", new, Outcome.PROMOTED)
    newer = reference(added(ledger, "ocserv", "1.5.0"), "1.5.0")
    left(ledger, changed(ledger, "next", newer, Outcome.PROMOTED), new)
    left(ledger, bad, old)
    return new


async def rolled_back(
    api: httpx.AsyncClient, by: dict[str, str], to: ReleaseRef | None = None, *, force: bool = False
) -> tuple[int, str]:
    order = {"kind": "roll_back", "reason": "calls drop", "force": force}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    named = {"to": to.digest} if to is not None else {}
    answer = await api.post("/fleets/edge/commands", json=order | named, headers=by | key)
    return answer.status_code, answer.text


@pytest.mark.parametrize("force", [False, True])
async def test_a_machine_rolls_back_to_no_release_that_is_pinned(
    api: httpx.AsyncClient, ledger: Ledger, twice_left: ReleaseRef, *, force: bool
) -> None:
    robot = token(ledger, Role.OPERATOR)
    status, said = await rolled_back(api, robot, twice_left, force=force)
    assert (status, "edge is pinned against 1.4.0" in said) == (422, True), said
    assert "pinned" not in (await rolled_back(api, robot, force=force))[1]


async def test_a_rollback_to_a_pinned_release_shows_the_pin_and_asks_a_second_person(
    api: httpx.AsyncClient, twice_left: ReleaseRef
) -> None:
    asked = {"to": twice_left.digest}
    said = (await api.get("/fleets/edge/rollback", params=asked)).json()
    pin = r"edge is pinned against 1\.4\.0: \S+ was taken back by ben at .*: calls drop"
    assert said["sentence"] == "edge-1 will serve 1.4.0; edge is pinned against 1.4.0"
    assert re.fullmatch(rf"1\.4\.0 is not the known-good of edge-1: {pin}", said["confirm"]), said
    plain = (await api.get("/fleets/edge/rollback")).json()
    assert (plain["confirm"], "pinned" in plain["sentence"]) == (None, False)
    reason = {"reason": "the phones were at fault", "release": twice_left.version}
    unpinned = await api.post("/fleets/edge/unpin", json=reason, headers={"Idempotency-Key": "1"})
    assert unpinned.status_code == 200, unpinned.text
    said = (await api.get("/fleets/edge/rollback", params=asked)).json()
    assert said["confirm"] == "1.4.0 is not the known-good of edge-1"


async def test_a_release_that_was_left_again_after_a_rollback_to_it_is_pinned(
    api: httpx.AsyncClient, ledger: Ledger, old: ReleaseRef, twice_left: ReleaseRef
) -> None:
    robot = token(ledger, Role.OPERATOR)
    changed(ledger, "to it", twice_left, Outcome.ROLLED_BACK, kind=ChangeKind.GO_BACK)
    assert "pinned" not in (await rolled_back(api, robot, twice_left))[1]
    changed(ledger, "and away", old, Outcome.ROLLED_BACK, kind=ChangeKind.GO_BACK)
    status, said = await rolled_back(api, robot, twice_left)
    assert (status, "edge is pinned against 1.4.0" in said) == (422, True), said


async def test_a_named_rollback_to_where_a_plain_one_goes_waits_for_nobody_though_that_is_pinned(
    api: httpx.AsyncClient, ledger: Ledger, new: ReleaseRef
) -> None:
    """The safe direction: a gateway goes to what it had before the last promotion, by name or without."""
    changed(ledger, "good", new, Outcome.PROMOTED)
    newer = reference(added(ledger, "ocserv", "1.5.0"), "1.5.0")
    changed(ledger, "another ring", new, Outcome.ROLLED_BACK, moves=False)
    changed(ledger, "next", newer, Outcome.PROMOTED)
    plain = (await api.get("/fleets/edge/rollback")).json()
    named = (await api.get("/fleets/edge/rollback", params={"to": new.digest})).json()
    assert (plain["confirm"], named["confirm"]) == (None, None)
    assert named["sentence"] == "edge-1 will serve 1.4.0"
    robot = token(ledger, Role.OPERATOR)
    assert all(["pinned" not in (await rolled_back(api, robot, to))[1] for to in (None, new)])


async def test_a_fix_is_a_new_digest_which_is_not_pinned(
    penstock: CommandLine, folder: Path, ledger: Ledger, new: ReleaseRef
) -> None:
    changed(ledger, "bad", new, Outcome.ROLLED_BACK, moves=False)
    asks_for(folder, reference(added(ledger, "ocserv", "1.4.1"), "1.4.1"))
    assert (await compared(penstock, folder))[1]["upgrade"]["state"] == "wanted"


async def test_a_rollback_leaves_a_patch_that_git_takes_and_a_branch_of_its_own(
    penstock: CommandLine, folder: Path, ledger: Ledger, old: ReleaseRef, new: ReleaseRef
) -> None:
    name = changed(ledger, "bad", new, Outcome.ROLLED_BACK, moves=False)
    file = asks_for(folder, new)
    commit = committed(folder, "edge: 1.4.0")
    said = await penstock("diff", str(folder), "--as-patch")
    assert said.code == 10, said.err
    patch = folder.parent / "back.patch"
    patch.write_text(said.out)
    git(folder, "apply", "--check", str(patch))
    assert f"+release: {old.digest}  # the digest counts" in said.out.splitlines()

    file.write_text(file.read_text() + "# not committed yet\n")
    who = {"GIT_AUTHOR_NAME": "ana", "GIT_COMMITTER_NAME": "ana"}
    who |= {"GIT_AUTHOR_EMAIL": "ana@example.org", "GIT_COMMITTER_EMAIL": "ana@example.org"}
    for words in ("has it now", "has it already"):
        made = await penstock("diff", str(folder), "--commit", **who)
        assert made.code == 10, made.err
        assert f"penstock/{name} {words}" in made.out
    shown = git(folder, "show", f"penstock/{name}:upgrade.yaml")
    assert f"release: {old.digest}  # the digest counts" in shown
    assert 'version: "1.3.0"' in shown
    assert git(folder, "rev-parse", f"penstock/{name}^") == commit == git(folder, "rev-parse", "main")
    assert git(folder, "status", "--porcelain") == "M upgrade.yaml"
    assert git(folder, "symbolic-ref", "HEAD") == "refs/heads/main"
    subject = git(folder, "log", "-1", "--format=%s", f"penstock/{name}")
    assert subject == f"edge: stay on 1.3.0 after the rollback of {name}"


async def test_an_older_commit_is_refused_unless_it_is_meant(
    penstock: CommandLine, folder: Path, tmp_path: Path, old: ReleaseRef
) -> None:
    del old
    place = tmp_path / "fleets" / "edge.yaml"
    (folder / "fleet.yaml").write_text(f"# one\n{EDGE}")
    first = committed(folder, "one")
    (folder / "fleet.yaml").write_text(f"# two\n{EDGE}")
    second = committed(folder, "two")
    assert (await penstock("apply", str(folder))).code == 0
    git(folder, "checkout", "-q", first)
    said = await penstock("diff", str(folder))
    assert f"not known to contain {second[:12]}, which was applied last" in said.out
    refused = await penstock("apply", str(folder))
    assert refused.code == 5, refused.out
    assert "--even-if-older" in refused.err
    assert place.read_text() == f"# two\n{EDGE}"
    assert (await penstock("apply", str(folder), "--even-if-older")).code == 0
    assert place.read_text() == f"# one\n{EDGE}"


async def test_a_plain_folder_does_not_undo_what_a_commit_applied(
    penstock: CommandLine, folder: Path, tmp_path: Path, old: ReleaseRef
) -> None:
    del old
    (folder / "fleet.yaml").write_text(f"# one\n{EDGE}")
    committed(folder, "one")
    assert (await penstock("apply", str(folder))).code == 0
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "fleet.yaml").write_text(EDGE)
    assert (await penstock("apply", str(plain))).code == 5


async def test_a_description_of_somebody_elses_time_is_refused(
    service: Service, tmp_path: Path, ledger: Ledger
) -> None:
    place = tmp_path / "fleets" / "edge.yaml"
    ana = administrator("ana")
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=f"# mine\n{EDGE}"), base=digest_of(EDGE.encode()), reason="mine"
    )
    other = f"# somebody else's\n{EDGE}"
    place.write_text(other)
    with pytest.raises(Conflict, match=r"edge\.yaml was changed since it was compared"):
        await service.desired.describe(ana, "edge", asked)
    assert place.read_text() == other
    assert ledger.newest_revision("edge", AppliedKind.DESCRIPTION) is None


def administrator(name: str) -> Caller:
    return Caller(person=name, grants={"edge": frozenset({Role.ADMIN})}, via=Via.API)


async def test_what_makes_a_safeguard_weaker_takes_two_administrators(
    service: Service, tmp_path: Path
) -> None:
    people = "".join(
        f"  - {{name: {name}, system_users: [{name}], roles: {{edge: [admin]}}}}\n"
        for name in ("ana", "bert")
    )
    (tmp_path / "people.yaml").write_text(f"apiVersion: penstock/v1\npeople:\n{people}")
    place = tmp_path / "fleets" / "edge.yaml"
    strict = EDGE + "approvals: 2\n"
    place.write_text(strict)
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=EDGE), base=digest_of(strict.encode()), reason="too slow"
    )
    for _ in range(2):  # one person twice is no second one
        with pytest.raises(ApprovalRequired, match="approvals is 0, was 2: one more administrator must"):
            await service.desired.describe(administrator("ana"), "edge", asked)
    assert place.read_text() == strict
    root = administrator("root")
    with pytest.raises(ApprovalRequired):
        await service.desired.describe(root, "edge", asked)
    done = await service.desired.describe(administrator("bert"), "edge", asked)
    assert done.revision.person == "bert"
    assert place.read_text() == EDGE


async def test_a_description_that_was_written_and_not_remembered_is_remembered_by_the_next(
    service: Service, tmp_path: Path, ledger: Ledger
) -> None:
    place = tmp_path / "fleets" / "edge.yaml"
    text = f"# new\n{EDGE}"
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=text), base=digest_of(EDGE.encode()), reason="why"
    )
    place.write_text(text)  # whoever wrote it was killed before the ledger heard of it
    done = await service.desired.describe(administrator("ana"), "edge", asked)
    assert not done.new
    assert ledger.newest_text("edge", AppliedKind.DESCRIPTION) == text


class Killed(BaseException):
    """Nothing of the process is left after this line."""


KILLED_IN = frozenset({"_describe", "replace", "_clear", "_write", "intend_revision", "record_revision"})
"""Everything from the decision to write a description until it is remembered."""


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Do this work, with an end before the line of that number that it comes to; whether it came so far."""
    reached = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal reached
        if frame.f_code.co_name not in KILLED_IN or "orchestrator" not in frame.f_code.co_filename:
            return None
        if event == "line":
            reached += 1
            if reached == line:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


def read_text(file: Text) -> ReadText:
    """Return the file as the service reads it."""
    found = read(Compared(description=file).model_dump_json().encode()).description
    assert found is not None
    return found


def applied_anew(service: Service, text: str) -> DescriptionApplied:
    """Return what the command asks for that has compared this text just now."""
    ana = administrator("ana")
    wanted = Text(path="fleet.yaml", text=text)
    described = service.desired._compare(ana, "edge", read_text(wanted), None).description
    assert described is not None
    assert not described.edited
    return DescriptionApplied(file=wanted, base=described.base, reason="why")


@pytest.mark.parametrize(
    "again", sampled(["the same request", "the same command", "a newer text"], "the same command")
)
async def test_an_apply_that_was_killed_at_whatever_line_is_no_edit_by_hand(
    service: Service, tmp_path: Path, ledger: Ledger, again: str
) -> None:
    place, ana = tmp_path / "fleets" / "edge.yaml", administrator("ana")
    await service.desired.describe(ana, "edge", applied_anew(service, f"# as it was\n{EDGE}"))
    for line in itertools.count(1):
        text = f"# killed before line {line}\n{EDGE}"
        asked = applied_anew(service, text)
        described = read_text(asked.file)
        came_so_far = killed_at(line, partial(service.desired._describe, ana, "edge", asked, described))
        if again == "a newer text":
            text = f"# newer than line {line}\n{EDGE}"
        repeated = asked if again == "the same request" else applied_anew(service, text)
        await service.desired.describe(ana, "edge", repeated)
        assert place.read_text() == text
        assert ledger.newest_text("edge", AppliedKind.DESCRIPTION) == text
        assert sorted(one.name for one in place.parent.iterdir()) == ["core.yaml", "edge.yaml"]
        if not came_so_far:
            assert line > 30, "it was killed nowhere"
            return


async def test_what_was_written_by_a_killed_apply_counts_as_the_commit_that_it_was(
    service: Service, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana, newer = administrator("ana"), f"# newer\n{EDGE}"
    first = applied_anew(service, f"# first\n{EDGE}").model_copy(update={"commit": "1" * 40})
    await service.desired.describe(ana, "edge", first)
    second = applied_anew(service, newer).model_copy(update={"commit": "2" * 40, "follows": "1" * 40})
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "record_revision", dies)
        with pytest.raises(Killed):
            service.desired._describe(ana, "edge", second, read_text(second.file))
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == newer
    older = first.model_copy(update={"base": digest_of(newer.encode())})
    with pytest.raises(Refused, match="revision 2, is of commit 222222222222"):
        await service.desired.describe(administrator("bert"), "edge", older)
    revision = ledger.newest_revision("edge", AppliedKind.DESCRIPTION)
    assert revision is not None
    assert (revision.number, revision.person, revision.commit) == (2, "ana", "2" * 40)


def dies(*_: object, **__: object) -> None:
    raise Killed


async def test_what_a_killed_writer_left_beside_the_file_is_removed_by_the_next(
    service: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "fleets"
    left, other = folder / ".edge.yaml.0a1b2c3d.part", folder / ".core.yaml.0a1b2c3d.part"
    left.write_text("half")
    other.write_text("of another file")
    await service.desired.describe(administrator("ana"), "edge", applied_anew(service, f"# new\n{EDGE}"))
    assert (left.exists(), other.exists()) == (False, True)


async def test_a_text_of_an_earlier_revision_that_is_put_back_by_hand_is_an_edit(
    service: Service, tmp_path: Path
) -> None:
    place, ana = tmp_path / "fleets" / "edge.yaml", administrator("ana")
    for word in ("first", "second"):
        await service.desired.describe(ana, "edge", applied_anew(service, f"# {word}\n{EDGE}"))
    place.write_text(f"# first\n{EDGE}")
    third = Text(path="fleet.yaml", text=f"# third\n{EDGE}")
    asked = DescriptionApplied(file=third, base=digest_of(place.read_bytes()), reason="why")
    with pytest.raises(Refused, match="edited on the orchestrator's host since revision 2"):
        await service.desired.describe(ana, "edge", asked)


async def test_no_gateway_leaves_while_a_change_is_under_way(
    service: Service, tmp_path: Path, ledger: Ledger
) -> None:
    place = tmp_path / "fleets" / "edge.yaml"
    place.write_text(EDGE + SECOND)
    name = changed(ledger, "now", reference(digest_of(b"x"), "1.4.0"), None, moves=False)
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=EDGE), base=digest_of((EDGE + SECOND).encode()), reason="gone"
    )
    with pytest.raises(Conflict, match=f"edge-2 cannot leave edge while {name} is under way"):
        await service.desired.describe(administrator("ana"), "edge", asked)


async def test_a_gateway_leaves_while_a_lost_change_without_an_end_waits_for_it(
    service: Service, tmp_path: Path, ledger: Ledger
) -> None:
    """A dead host would keep the change open, and the change would keep the dead host in the file."""
    place = tmp_path / "fleets" / "edge.yaml"
    place.write_text(EDGE + SECOND)
    release = reference(digest_of(b"x"), "1.4.0")
    changed(ledger, "lost", release, None, moves=False)
    changed(ledger, "back", release, Outcome.ROLLBACK_INCOMPLETE, kind=ChangeKind.GO_BACK, moves=False)
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=EDGE), base=digest_of((EDGE + SECOND).encode()), reason="gone"
    )
    assert (await service.desired.describe(administrator("ana"), "edge", asked)).new
    assert place.read_text() == EDGE


async def test_a_machine_and_an_operator_describe_nothing_and_hear_it_before_anything_is_done(
    penstock: CommandLine, folder: Path, ledger: Ledger, tmp_path: Path
) -> None:
    (folder / "fleet.yaml").write_text(f"# new\n{EDGE}")
    grants = {"edge": frozenset({Role.CI})}
    secret, _ = ledger.make_token("pipeline", grants, timedelta(days=1), "root")
    said = await penstock("apply", str(folder), PENSTOCK_TOKEN=secret)
    assert said.code == 4, said.out
    assert "nothing was applied: pipeline is a machine; only people administer edge" in said.err
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == EDGE


async def test_a_new_fleet_gets_a_file_of_its_own(
    penstock: CommandLine, folder: Path, tmp_path: Path
) -> None:
    (folder / "fleet.yaml").unlink()
    (folder / "west.yaml").write_text(FLEETS.format(name="west"))
    said = await penstock("diff", str(folder))
    assert (said.code, "the fleet west is new, with one gateway" in said.out) == (10, True), said.err
    applied = await penstock("apply", str(folder))
    assert applied.code == 6, applied.err  # which release its gateways get, a person says
    assert (tmp_path / "fleets" / "west.yaml").read_text() == FLEETS.format(name="west")
    assert "west" in (await penstock("fleet", "list")).out


async def test_an_upgrade_of_another_version_than_its_digest_says_is_refused(
    penstock: CommandLine, folder: Path, new: ReleaseRef
) -> None:
    file = asks_for(folder, new)
    file.write_text(file.read_text().replace("1.4.0", "1.5.0"))
    said = await penstock("diff", str(folder))
    assert said.code == 2
    assert "is 1.4.0, and the file calls it 1.5.0" in said.err


async def test_a_description_that_the_api_may_not_write_is_said_so(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("orchestrator.service.description_file.DescriptionFile._write", read_only)
    asked = DescriptionApplied(
        file=Text(path="fleet.yaml", text=f"# x\n{EDGE}"), base=digest_of(EDGE.encode()), reason="why"
    )
    with pytest.raises(Exception, match=r"cannot be written by the API \(Read-only file system\)"):
        await service.desired.describe(administrator("ana"), "edge", asked)
    assert (tmp_path / "fleets" / "edge.yaml").read_text() == EDGE


async def test_what_came_back_after_its_promotion_by_a_person_is_pinned_as_well(
    penstock: CommandLine, folder: Path, ledger: Ledger, old: ReleaseRef, new: ReleaseRef
) -> None:
    promoted = changed(ledger, "good", new, Outcome.PROMOTED)
    asks_for(folder, new)
    assert (await compared(penstock, folder))[1]["upgrade"]["state"] == "reached"
    opening = ChangeOpening(
        key="back",
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        requested_by="bert",
        reason="calls drop",
        release="known-good",
        cause=promoted,
    )
    back = ledger.open_change(opening)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=back, releases={"edge-1": old}))
    ledger.close_change(ChangeEnding(change=back, outcome=Outcome.ROLLED_BACK, sentence="bert took it back"))
    pin = (await compared(penstock, folder))[1]["upgrade"]["pin"]
    assert (pin["change"], pin["by"], pin["why"]) == (promoted, "bert", "calls drop")


async def test_who_joins_is_brought_up_on_what_all_others_have_and_only_once(
    penstock: CommandLine,
    folder: Path,
    ledger: Ledger,
    tmp_path: Path,
    old: ReleaseRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    async def install(_: object, fleet: Fleet, release: ReleaseRef, *__: object, **___: object) -> str:
        assert [gateway.name for gateway in fleet.gateways] == ["edge-1", "edge-2"]
        begun.append(release.digest)
        return changed(ledger, "join", release, None, kind=ChangeKind.INSTALL, moves=False)

    async def nobody_lacks_anything(*_: object) -> None:
        """Answer for gateways that no engine reaches here."""

    monkeypatch.setattr(ChangeService, "install", install)
    monkeypatch.setattr(PlanService, "require_credentials", nobody_lacks_anything)
    (folder / "fleet.yaml").write_text(EDGE + SECOND)
    first = await penstock("apply", str(folder))
    assert first.code == 0, first.err
    assert "they would be brought up on 1.3.0, as all others are" in first.out
    name = ledger.open_changes("edge")[0]
    second = await penstock("apply", str(folder))
    assert second.code == 0, second.err
    assert f"{name} is bringing up gateways" in second.out
    assert begun == [old.digest]
    batch = KnownGoodBatch(fleet="edge", change=name, releases={"edge-2": old})
    ledger.record_known_good_batch(batch)
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="it serves"))
    third = await penstock("apply", str(folder))
    assert (third.code, "Joiners" in third.out) == (0, False), third.err
    assert begun == [old.digest]


async def test_drift_and_strangers_are_said_by_what_gateways_said_last(
    penstock: CommandLine, folder: Path, ledger: Ledger, old: ReleaseRef
) -> None:
    silent = await penstock("diff", str(folder))
    assert (silent.code, "not heard of lately, so not compared: edge-1" in silent.out) == (6, True)
    fleet = Fleet.model_validate(yaml.safe_load(EDGE + SECOND))
    states = []
    for gateway, release in zip(fleet.gateways, (old, reference(digest_of(b"x"), "9")), strict=True):
        fake = FakeGateway(gateway)
        fake.serve(release)
        states.append(await fake.observe())
    ledger.record_states("edge", states[:1], {})
    well = await penstock("diff", str(folder))
    assert well.code == 0, well.out
    assert "as the files say" in well.out
    ledger.record_states("edge", states, {})
    said = await penstock("diff", str(folder))
    assert (said.code, "Strangers    not in the description: edge-2" in said.out) == (10, True), said.out
    changed(ledger, "moved", reference(digest_of(b"x"), "9"), Outcome.PROMOTED)
    said = await penstock("diff", str(folder))
    assert "edge-1: what runs: it runs a release that is not its known-good 9" in said.out


async def test_a_pipeline_applies_upgrades_beside_a_description_that_is_so_already(
    penstock: CommandLine, folder: Path, ledger: Ledger, old: ReleaseRef
) -> None:
    asks_for(folder, old)
    secret, _ = ledger.make_token("pipeline", {"edge": frozenset({Role.CI})}, timedelta(days=1), "root")
    said = await penstock("apply", str(folder), PENSTOCK_TOKEN=secret)
    assert (said.code, "the fleet's known-good is 1.3.0" in said.out) == (0, True), said.err
    assert ledger.newest_revision("edge", AppliedKind.DESCRIPTION) is None


async def test_of_several_fleets_one_that_is_refused_keeps_no_other_from_its_turn(
    penstock: CommandLine, folder: Path, tmp_path: Path, old: ReleaseRef
) -> None:
    del old
    core, places = FLEETS.format(name="core"), tmp_path / "fleets"
    (places / "core.yaml").write_text(core + "approvals: 1\n")
    (folder / "core.yml").write_text(core)
    (folder / "fleet.yaml").write_text(f"# reviewed\n{EDGE}")
    said = await penstock("apply", str(folder), "-o", "json")
    assert said.code == 5, said.err
    # newcomer 14: one sentence has one number, of those who must apply it.
    one_number = "2 more administrators must apply the same file within 4:00:00; so far: none"
    assert f"approvals is 0, was 1, and root may be one of them: {one_number}" in said.err
    assert "people must approve the plan" not in said.err
    ended = {one["fleet"]: one["exit_code"] for one in json.loads(said.out)["data"]}
    assert ended == {"core": 5, "edge": 0}
    assert (places / "core.yaml").read_text() == core + "approvals: 1\n"
    assert (places / "edge.yaml").read_text() == f"# reviewed\n{EDGE}"

    (folder / "again.yaml").write_text(EDGE)
    twice = await penstock("apply", str(folder))
    assert twice.code == 2
    assert f"{folder}/again.yaml and {folder}/fleet.yaml both are about the fleet edge" in twice.err
