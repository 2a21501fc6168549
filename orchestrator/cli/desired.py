"""Commands that compare a folder of descriptions and upgrades with what is so, and apply it."""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.checkout import Checkout
from orchestrator.cli.client import Api, Problem
from orchestrator.cli.following import begun_line, code_of_begun, follow_begun
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.words import FleetName, Key, Reason, Wait, completed_releases, fleet_of
from orchestrator.exit_code import ExitCode
from orchestrator.words.desired import (
    description_lines,
    drift_lines,
    is_different,
    is_unseen,
    joiner_lines,
    went_back,
    wish_lines,
)
from orchestrator.words.offers import all_spelled
from orchestrator.words.plans import plan_lines
from orchestrator.words.text import printable

Json = Any
Folder = Annotated[
    Path,
    typer.Argument(
        help="a folder with fleet.yaml and upgrade.yaml, several if their names differ; or a file"
    ),
]
AsPatch = Annotated[
    bool, typer.Option("--as-patch", help="print a patch by which files name what pinned fleets are on")
]
Commit = Annotated[
    bool,
    typer.Option("--commit", help="have that patch as a commit on a branch of its own, penstock/CHANGE"),
]
Older = Annotated[
    bool,
    typer.Option("--even-if-older", help="also where it may not contain the commit that was applied last"),
]
Edited = Annotated[
    bool,
    typer.Option(
        "--replace-edited", help="also where the description was edited by hand on the control host"
    ),
]
Because = Annotated[
    str | None,
    typer.Option("--reason", help="why descriptions change; the subject of the commit when left out"),
]
ThatRelease = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="the release: digest, its beginning, or version; that of the newest upgrade when left out",
        autocompletion=completed_releases,
    ),
]

SKIPPED = frozenset({"gates", "trust", "people", "agent"})
"""Files of an installation that lie beside descriptions and are not applied."""


@dataclass(frozen=True)
class File:
    """One file as it lies there."""

    path: Path
    kind: str
    fleet: str
    text: str

    @property
    def body(self) -> Json:
        """The file as it is sent."""
        return {"path": str(self.path)[:500], "text": self.text}


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one fleet."""

    fleet: str
    description: File | None = None
    upgrade: File | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """Its files."""
        return tuple(file for file in (self.description, self.upgrade) if file is not None)


def diff(
    folder: Folder = Path(),
    as_patch: AsPatch = False,
    commit: Commit = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say what applying a folder would change, with the plan, and what drifts; nothing is changed.

    Ends with 0 where all is as the files say, 10 where something differs, 6 where gateways were not heard of.
    """
    wanted, checkout = _wanted(folder), Checkout.of(_folder_of(folder))
    api = Api()
    compared = _compared(api, wanted)
    if as_patch or commit:
        raise typer.Exit(_patched(compared, wanted, checkout, commit=commit))
    rows = []
    for one, comparison in zip(wanted, compared, strict=True):
        plan = _plan(api, comparison)
        rows.append({**comparison, "plan": plan})
        if output is Output.TABLE:
            _show(comparison, plan)
            _warn_older(comparison, one, checkout)
    emit(output, "Comparison", rows, lambda: None, rows=rows, names=[row["fleet"] for row in rows])
    differs = any(map(is_different, compared))
    unseen = ExitCode.HELD if any(map(is_unseen, compared)) else ExitCode.DONE
    raise typer.Exit(ExitCode.DIFFERENCES if differs else unseen)


def apply(
    folder: Folder = Path(),
    reason: Because = None,
    wait: Wait = False,
    even_if_older: Older = False,
    replace_edited: Edited = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have fleets described and upgraded as the files of a folder say; the same again changes nothing.

    Every file is read and compared before anything is changed. Then descriptions are written, gateways that
    have no release are brought up, and upgrades whose files say so are started, each by the plan that is
    printed. Where several fleets fail, it ends with the code of the first.
    """
    wanted, checkout = _wanted(folder), Checkout.of(_folder_of(folder))
    api = Api()
    compared = _compared(api, wanted)
    _refuse_what_is_not_theirs(compared)
    because = (reason or (checkout.subject if checkout is not None else "") or f"applied from {folder}")[:500]
    results, code = [], int(ExitCode.DONE)
    for one, comparison in zip(wanted, compared, strict=True):
        turn = Applying(
            api=api,
            wanted=one,
            comparison=comparison,
            checkout=checkout,
            reason=because,
            wait=wait,
            even_if_older=even_if_older,
            replace_edited=replace_edited,
            output=output,
        )
        ended = turn.run()
        code = code or ended
        results.append({"fleet": one.fleet, "exit_code": ended, **turn.done})
    emit(output, "Applied", results, lambda: None, rows=results, names=[one["fleet"] for one in results])
    raise typer.Exit(code)


def unpin(
    reason: Reason,
    fleet: FleetName = None,
    to: ThatRelease = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a fleet get a release again that it went back from; only a person may, for this one time.

    After the ledger was restored or rebuilt, it confirms the ledger when `--to` is left out: files, schedules
    and machines may start changes again.
    """
    api = Api()
    name = fleet_of(api, fleet)
    body = {"reason": reason, "release": to}
    found = api.post("fleets", name, "unpin", body=body, key=key)
    emit(output, "Unpinned", found, lambda: say(f"{found['sentence']}."), names=[found["change"] or name])


# --- reading -----------------------------------------------------------------------------


def _folder_of(place: Path) -> Path:
    return place if place.is_dir() else place.parent


def _wanted(place: Path) -> list[Wanted]:
    """Return what the files there ask for, by fleet; Problem where one of them is not as it must be."""
    files = list(_files(place))
    if not files:
        raise _bad(
            f"{place} has no file that describes a fleet or an upgrade; write fleet.yaml or upgrade.yaml"
        )
    found: dict[str, dict[str, File]] = {}
    for file in files:
        theirs = found.setdefault(file.fleet, {})
        if other := theirs.get(file.kind):
            raise _bad(
                f"{other.path} and {file.path} both are about the fleet {file.fleet}; keep one of them"
            )
        theirs[file.kind] = file
    return [
        Wanted(fleet, of_fleet.get("fleet"), of_fleet.get("upgrade"))
        for fleet, of_fleet in sorted(found.items())
    ]


def _files(place: Path) -> Iterator[File]:
    from activities.files import LARGEST, parse  # noqa: PLC0415 - only who applies files waits for it
    from orchestrator.cli.check import kind_of  # noqa: PLC0415
    from policies.model.desired import Upgrade  # noqa: PLC0415
    from policies.model.fleet import Fleet  # noqa: PLC0415

    paths = [place]
    if place.is_dir():
        paths = sorted(
            path
            for path in place.iterdir()
            if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")
        )
    for path in paths:
        kind = kind_of(path)
        if kind in SKIPPED:
            continue
        try:
            if path.stat().st_size > LARGEST:
                raise _bad(f"{path} is larger than {LARGEST} bytes; check that it is the file you mean")
            text = path.read_bytes().decode()
        except OSError as error:
            raise _bad(f"{path} cannot be read: {error.strerror}; check the path") from error
        except UnicodeDecodeError as error:
            raise _bad(f"{path} is not UTF-8 text; save the file as UTF-8") from error
        if kind == "upgrade":
            yield File(path, kind, parse(text, str(path), Upgrade).fleet, text)
        else:
            yield File(path, "fleet", parse(text, str(path), Fleet).name, text)


def _compared(api: Api, wanted: Sequence[Wanted]) -> list[Json]:
    comparing = api.comparing()
    return [
        comparing.post(
            "fleets",
            one.fleet,
            "desired",
            "diff",
            body={
                "description": one.description.body if one.description else None,
                "upgrade": one.upgrade.body if one.upgrade else None,
            },
        )
        for one in wanted
    ]


def _plan(api: Api, comparison: Json) -> Json | None:
    """Return the plan of an upgrade that is wanted; None where none is, or none can be made now."""
    wish = comparison["upgrade"]
    if wish is None or wish["state"] != "wanted" or wish["refusal"]:
        return None
    try:
        return _planned(api, comparison["fleet"], wish)
    except Problem as problem:
        sys.stderr.write(printable(f"{comparison['fleet']}: no plan can be made now: {problem}") + "\n")
        return None


def _planned(api: Api, fleet: str, wish: Json) -> Json:
    body = {"fleet": fleet, "to": wish["release"], "strategy": wish["strategy"]}
    return api.surveying().post("plans", body=body)


def _show(comparison: Json, plan: Json | None) -> None:
    """Print what differs of one fleet, for people."""
    described, wish = comparison["description"], comparison["upgrade"]
    lines = description_lines(described) if described is not None else []
    lines += joiner_lines(comparison["joiners"])
    lines += wish_lines(wish) if wish is not None else []
    if plan is not None:
        lines += [f"  {line}" for line in plan_lines(plan)[: -1 if plan["offers"] else None]]
    if wish is not None and wish["state"] == "wanted" and wish["start"] == "never":
        lines.append("  it says `start: never`, so applying shows the plan and starts nothing")
    lines += drift_lines(comparison)
    say(f"{comparison['fleet']}:", *(f"  {line}" for line in lines or ["as the files say"]))


def _follows(last: Json | None, checkout: Checkout | None) -> str | None:
    """Return the commit that was applied last, if this checkout surely contains it."""
    if last is None or last["commit"] is None or checkout is None:
        return None
    return str(last["commit"]) if checkout.contains(last["commit"]) else None


def _warn_older(comparison: Json, wanted: Wanted, checkout: Checkout | None) -> None:
    """Say where what lies here may be older than what was applied last."""
    for part, file in (
        (comparison["description"], wanted.description),
        (comparison["upgrade"], wanted.upgrade),
    ):
        if part is None or file is None or part["recorded"]:
            continue
        last = part["last"]
        if last is not None and last["commit"] and _follows(last, checkout) is None:
            commit = last["commit"][:12]
            say(f"  OLDER       {file.path} is not known to contain {commit}, which was applied last")


# --- applying ----------------------------------------------------------------------------


def _refuse_what_is_not_theirs(compared: Sequence[Json]) -> None:
    """Refuse before anything is changed what whoever asks may not apply."""
    for comparison in compared:
        described, wish = comparison["description"], comparison["upgrade"]
        refusals = [
            described["refusal"] if described is not None and not described["same"] else None,
            wish["refusal"] if wish is not None and wish["state"] in {"wanted", "pinned"} else None,
        ]
        if refusal := next(filter(None, refusals), None):
            sentence = f"nothing was applied: {refusal}"
            raise Problem("NotAllowed", sentence, exit_code=ExitCode.NOT_ALLOWED)


@dataclass
class Applying:
    """One fleet's turn: its description, those who join, and its upgrade, as far as each goes."""

    api: Api
    wanted: Wanted
    comparison: Json
    checkout: Checkout | None
    reason: str
    wait: bool
    even_if_older: bool
    replace_edited: bool
    output: Output

    def __post_init__(self) -> None:
        """Begin with nothing done."""
        self.done: dict[str, Json] = {"description": None, "install": None, "upgrade": None, "problem": None}

    def run(self) -> int:
        """Apply it and return how that ended; what is refused is said, and the next fleet has its turn."""
        self._say(f"{self.wanted.fleet}:")
        try:
            self._describe()
            code = self._bring_up()
            return self._upgrade(code)
        except Problem as problem:
            self.done["problem"] = {"code": problem.code, "detail": str(problem)}
            sys.stdout.flush()
            sys.stderr.write(printable(f"{problem.code}: {problem}") + "\n")
            if problem.offers:
                sys.stderr.write(printable(f"Next: {all_spelled(problem.offers)}") + "\n")
            return problem.exit_code

    def _say(self, *lines: str) -> None:
        if self.output is Output.TABLE:
            say(*lines)

    def _from(self, file: File, last: Json | None) -> Json:
        """Return what is said of a file: where it is from, and what it is known to follow."""
        checkout = self.checkout
        committed = checkout is not None and checkout.is_committed(file.path)
        return {
            "file": file.body,
            "commit": checkout.commit if checkout is not None and committed else None,
            "author": printable(checkout.author) if checkout is not None and committed else "",
            "follows": _follows(last, checkout),
            "even_if_older": self.even_if_older,
        }

    def _describe(self) -> None:
        file, described = self.wanted.description, self.comparison["description"]
        if file is None or (described["same"] and (described["recorded"] or described["refusal"])):
            self._say("  the description is as the file says")
            return
        self._say(*(f"  {line}" for line in description_lines(described)))
        body = {
            **self._from(file, described["last"]),
            "base": described["base"],
            "replace_edited": self.replace_edited,
            "reason": self.reason,
        }
        found = self.api.comparing().post("fleets", self.wanted.fleet, "description", body=body)
        self.done["description"] = found["revision"]
        what = "is in force" if found["new"] else "was so already, and is remembered"
        self._say(f"  the description {what}, as revision {found['revision']['number']}")

    def _bring_up(self) -> ExitCode:
        joiners = self.comparison["joiners"]
        if not joiners["count"]:
            return ExitCode.DONE
        self._say(*(f"  {line}" for line in joiner_lines(joiners)))
        if joiners["change"]:
            return ExitCode.DONE
        if joiners["release"] is None:
            return ExitCode.HELD
        if joiners["refusal"]:
            sys.stderr.write(printable(f"they are not brought up: {joiners['refusal']}") + "\n")
            return ExitCode.NOT_ALLOWED
        body = {"to": joiners["release"]["digest"], "reason": self.reason}
        begun = self.api.surveying().post("fleets", self.wanted.fleet, "install", body=body)
        self.done["install"] = begun["change"]
        return self._begun(begun)

    def _begun(self, found: Json) -> ExitCode:
        """Say that a change has begun, and follow it where that is meant."""
        if self.wait:
            return follow_begun(self.api, self.wanted.fleet, found, self.output)
        self._say(f"  {begun_line(self.wanted.fleet, found)}")
        return code_of_begun(found)

    def _upgrade(self, code: ExitCode) -> ExitCode:
        file, wish = self.wanted.upgrade, self.comparison["upgrade"]
        if file is None:
            return code
        if wish["recorded"] and wish["state"] in {"reached", "under_way"}:
            self._say(*(f"  {line}" for line in wish_lines(wish)))
            return code
        installs = bool(self.done["install"]) or code is ExitCode.TIMED_OUT
        if wish["state"] == "wanted" and installs and not (self.wait and code is ExitCode.DONE):
            self._say("  the upgrade comes after that: apply again once it has ended")
            return code or ExitCode.TIMED_OUT
        if wish["state"] == "empty":
            self._say(*(f"  {line}" for line in wish_lines(wish)))
            return code or ExitCode.HELD
        return self._wish(file, wish) or code

    def _wish(self, file: File, wish: Json) -> ExitCode:
        plan = None
        if wish["state"] == "wanted":
            plan = _planned(self.api, self.wanted.fleet, wish)
            self._say(*(f"  {line}" for line in plan_lines(plan)[: -1 if plan["offers"] else None]))
        elif wish["state"] != "pinned" or wish["pin"] is None:  # of which the refusal says everything
            self._say(*(f"  {line}" for line in wish_lines(wish)))
        else:
            self._say(f"  penstock diff {file.path} --as-patch has it name what the fleet is on")
        body = {**self._from(file, wish["last"]), "plan": plan["digest"] if plan is not None else None}
        found = self.api.surveying().post("fleets", self.wanted.fleet, "upgrade", body=body)
        self.done["upgrade"] = found
        if found["started"]:
            return self._begun(found)
        if found["state"] == "wanted":
            self._say("  nothing is started: the file says `start: never`")
        return ExitCode.DONE


# --- patches -----------------------------------------------------------------------------


def _patched(
    compared: Sequence[Json], wanted: Sequence[Wanted], checkout: Checkout | None, *, commit: bool
) -> ExitCode:
    """Print, or commit beside, what would have files name what pinned fleets are on."""
    found = ExitCode.DONE
    for one, comparison in zip(wanted, compared, strict=True):
        wish = comparison["upgrade"]
        if one.upgrade is None or wish["pin"] is None or wish["state"] != "pinned":
            continue
        if wish["known_good"] is None:
            on = ", ".join(f"{version} on {count}" for version, count in wish["on"].items())
            raise _bad(f"{one.fleet} is not on one release that {one.upgrade.path} could name, but on {on}")
        found = ExitCode.DIFFERENCES
        if commit:
            _commit(checkout, one.upgrade, wish)
        else:
            name = checkout.name_of(one.upgrade.path) if checkout is not None else str(one.upgrade.path)
            sys.stdout.write(_patch(name, one.upgrade.text, _naming(one.upgrade, one.upgrade.text, wish)))
    if found is ExitCode.DONE:
        sys.stderr.write("No fleet is pinned against what its file asks for.\n")
    return found


def _commit(checkout: Checkout | None, file: File, wish: Json) -> None:
    if checkout is None:
        raise _bad(f"{file.path} is in no checkout with a commit; leave --commit out, and take --as-patch")
    pin, good = wish["pin"], wish["known_good"]
    branch = f"penstock/{pin['change']}"
    text = _naming(file, checkout.text_of(file.path), wish)
    message = (
        f"{file.fleet}: stay on {good['version']} after the rollback of {pin['change']}\n\n"
        f"{pin['version']} {went_back(pin)}: {pin['why']}\n"
    )
    new = checkout.commit_beside(
        branch, file.path, text, "".join(c for c in message if c.isprintable() or c == "\n")
    )
    say(f"{branch} {'has it now' if new else 'has it already'}; review it: git show {branch}")


def _naming(file: File, text: str, wish: Json) -> str:
    """Return the file's text with what the fleet is on as its release; everything else stays as it is."""
    from activities.files import parse  # noqa: PLC0415 - only who wants a patch waits for it
    from policies.model.desired import Upgrade  # noqa: PLC0415

    good = wish["known_good"]
    named = re.sub(r"(?m)^(release:[ \t]+)\S+", lambda found: found[1] + good["digest"], text)
    named = re.sub(r"(?m)^(version:[ \t]+)[^\s#]+", lambda found: found[1] + _label(good["version"]), named)
    made = parse(named, str(file.path), Upgrade)
    if made.release != good["digest"] or made.version not in {None, good["version"]}:
        raise _bad(
            f"{file.path} has release or version in more than a line; write each in one, and ask again"
        )
    return named


def _label(version: str) -> str:
    """Return a version as YAML takes it for text: 1.5 would be a number."""
    return f'"{version}"'


def _patch(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _bad(sentence: str) -> Problem:
    return Problem("BadInput", sentence, exit_code=ExitCode.USAGE)
