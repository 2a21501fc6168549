"""What people read agrees with what runs: exit codes, error names, links, decisions, runbooks."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import activities.failures
import activities.refusals  # noqa: F401
from activities.files import load
from deploy.lab.keeper_words import OF_A_GATEWAY, OF_ALL
from orchestrator.exit_code import ExitCode, code_of
from orchestrator.installation import ROOMS
from orchestrator.processes.agent import files_of
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.words.explained import meaning_of
from policies.access import ALLOWED, Action
from policies.model import refusals  # noqa: F401
from policies.model.change import Outcome
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.host_limits import HostLimits
from policies.model.plan import Strategy
from policies.model.value import digest_of
from policies.planning.plan import plan as make_plan
from tests.fakes.notice_sinks import MODELS
from tests.house.tree import ROOT, documents, modules, place
from tests.lab.readme_commands import ELSEWHERE, STORY, of_the_readme
from tests.unit.fleets import NEW, OLD, state

README = (ROOT / "README.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
TEST = re.compile(r"def (test_\w+)")
RUNBOOKS = sorted(path for path in (ROOT / "runbooks").glob("*.md") if path.name != "index.md")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
HEADINGS = [
    "When you see",
    "Are users hurt now?",
    "Do this first",
    "Decide",
    "Commands",
    "If that fails",
    "Undo",
    "Who to wake",
    "What to keep",
]


def test_the_readme_says_what_each_role_may_do() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    for role, allowed in ALLOWED.items():
        said = ", ".join(action.value for action in Action if action in allowed)
        assert f"| `{role.value}` | {said} |" in rows


def test_every_row_of_the_threat_model_is_held_by_tests() -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("| ")][2:]
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name in TEST.findall(path.read_text())}
    for row in rows:
        held = re.findall(r"`(test_\w+)`", row)
        assert held, f"{row} is held by no test"
        assert not set(held) - there, f"there is no {set(held) - there}"


def test_every_command_of_the_readme_is_typed_in_a_lab_or_has_a_test_that_types_it() -> None:
    here = [typed.command for typed in STORY]
    assert sorted({*here, *ELSEWHERE}) == sorted(of_the_readme())
    for command, test in ELSEWHERE.items():
        verb = command.split(" ")[-1].replace("-", "_")
        assert re.search(rf"\b{verb}\b", (ROOT / test).read_text()), f"{test} does not type {command}"


def errors(kind: type[PenstockError] = PenstockError) -> Iterator[type[PenstockError]]:
    """Every error with a sentence for people."""
    for found in kind.__subclasses__():
        yield found
        yield from errors(found)


def test_the_readmes_exit_codes_are_those_of_the_program() -> None:
    section = README.partition("### Exit codes")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (\d+) \| (.+) \|$", section, flags=re.MULTILINE)
    assert table == [(str(int(code)), code.meaning) for code in ExitCode]


def test_every_error_and_every_outcome_ends_with_a_documented_code() -> None:
    assert {error.exit_code for error in errors()} <= {int(code) for code in ExitCode}
    ends = {outcome: code_of(outcome) for outcome in Outcome}
    assert [outcome for outcome, code in ends.items() if code is ExitCode.DONE] == [Outcome.PROMOTED]
    assert ends[Outcome.ROLLBACK_INCOMPLETE] is ExitCode.ROLLBACK_INCOMPLETE
    assert code_of(None) is ExitCode.TIMED_OUT


def test_the_readmes_fleet_is_a_fleet_that_can_be_planned(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.+?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "fleet.yaml").write_text(example)
    fleet = load(tmp_path / "fleet.yaml", Fleet)
    states = {gateway.name: state(gateway.name) for gateway in fleet.gateways}
    plan = make_plan(
        fleet,
        states,
        dict.fromkeys(states, OLD),
        NEW,
        Strategy.CANARY,
        gates=GatePolicy(),
        trust_policy=digest_of(b""),
    )
    assert [len(wave.gateways) for wave in plan.waves] == [1, 1]


def test_the_agents_file_of_the_documents_is_whole_and_has_the_usual_limits(
    tmp_path: Path,
) -> None:
    (example,) = re.findall(
        r"^```yaml\n(.+?)^```$", (ROOT / "docs/relay.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    (tmp_path / "agent.yaml").write_text(example)
    settings = load(tmp_path / "agent.yaml", AgentSettings)
    assert settings.limits == HostLimits()
    assert files_of(settings).payload_keys == settings.payload_keys


def test_the_readme_begins_with_what_penstock_does_and_two_commands() -> None:
    first = README.splitlines()[:32]
    assert [line for line in first if line.startswith("$ ")] == ["$ ./run demo", "$ ./run test"]


def test_every_error_a_command_can_print_is_explained_in_a_runbook() -> None:
    pages = "".join(path.read_text() for path in [*RUNBOOKS, ROOT / "runbooks" / "index.md"])
    # Of TrustError only its kinds are raised; the other two never leave the source that raises them.
    # A relay's refusal of a certificate that ended reaches agents alone, by the status of gRPC; a malformed
    # comparison is answered as every request that the API does not understand.
    silent = {"TrustError", "Challenged", "NotThere", "Ended", "Malformed"}
    assert [e.__name__ for e in errors() if f"`{e.__name__}`" not in pages and e.__name__ not in silent] == []


def test_every_word_of_the_runbooks_table_is_explained_with_the_same_page() -> None:
    table = (ROOT / "runbooks" / "index.md").read_text().partition("| Word |")[2]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", table, flags=re.MULTILINE)
    assert len(rows) > 15
    for word, page in rows:
        meant = meaning_of(word)
        assert meant is not None, word
        linked = re.match(r"\[([\w-]+)\]", page)
        assert meant["runbook"] == (linked[1] if linked else None), word


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_answers_the_same_questions_in_the_same_order(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == HEADINGS
    assert "Last drilled:" in text
    assert len(text.splitlines()) <= 120, "what a page has people type comes with what they will see"


def test_every_runbook_and_every_decision_is_in_its_index() -> None:
    for index, pages in (
        (ROOT / "runbooks" / "index.md", RUNBOOKS),
        (DECISIONS[0].parent / "index.md", DECISIONS),
    ):
        named = re.findall(r"\]\(([\w-]+\.md)\)", index.read_text())
        assert set(named) == {page.name for page in pages}


def test_decisions_are_numbered_without_gaps_and_listed_by_their_titles() -> None:
    index = (DECISIONS[0].parent / "index.md").read_text()
    for number, page in enumerate(DECISIONS, start=1):
        title = page.read_text().splitlines()[0].removeprefix("# ")
        assert page.name.startswith(f"{number:04}-")
        assert title.startswith(f"{number:04} ")
        assert f"[{title}]({page.name}) | accepted" in index


def test_a_decision_says_context_options_decision_and_consequences() -> None:
    for page in DECISIONS:
        headings = re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
        assert headings == ["Context", "Options", "Decision", "Consequences"], place(page)


def test_no_link_between_documents_is_broken() -> None:
    broken = [
        f"{place(page)}: {target}"
        for page in documents()
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_that_code_cites_is_in_this_repository() -> None:
    cited = re.compile(r"(?<![\w/.-])((?:docs|runbooks|deploy|research)/[a-z0-9/_-]+\.md)\b")
    named = {(place(path), page) for path in modules(*ROOMS) for page in cited.findall(path.read_text())}
    assert named
    assert [one for one in sorted(named) if not (ROOT / one[1]).is_file()] == []


def test_every_kind_of_sink_has_a_row_that_says_what_its_repeats_are_known_by() -> None:
    text = (ROOT / "docs" / "notices.md").read_text()
    table = text.partition("| kind of sink | repeats have the same |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \| .+ \|$", table, flags=re.MULTILINE)) == sorted(MODELS)


def test_every_place_that_contributing_sends_people_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+[\w.]*)`", text))
    assert len(named) > 10
    made = {"dist/"}
    assert [name for name in sorted(named - made) if not (ROOT / name).exists()] == []


def test_the_readme_names_every_part_of_a_lab_that_breaks() -> None:
    said = README.partition("`./run lab break KIND [GATEWAY]`")[2].partition("Its state is")[0]
    of_a_gateway, of_all = said.partition("Of one gateway")[2].split("Of the whole lab")
    assert re.findall(r"`([a-z-]+)`", of_a_gateway) == [*OF_A_GATEWAY]
    assert re.findall(r"`([a-z-]+)`", of_all) == [*OF_ALL]


def test_the_readme_names_the_commands_that_require_a_fleet() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/reference/commands.md").read_text(), flags=re.MULTILINE)
    required = {one.splitlines()[0] for one in sections if "| `FLEET` | has to be said |" in one}
    of_gateways = {name for name in required if name.startswith("penstock gateway ")}
    listed = set(re.findall(r"^\| `(penstock gateway [a-z -]+)` \|", README, flags=re.MULTILINE))
    assert listed == of_gateways
    named = {name.removeprefix("penstock ") for name in required - of_gateways}
    section = " ".join(README.partition("\n## Commands\n")[2].split())
    said = section.partition(" and every `gateway` command require it")[0]
    assert set(re.findall(r"`(\w+ [a-z-]+)`", said)) == named


def test_documents_name_only_commands_that_the_readme_lists() -> None:
    listed = set(re.findall(r"^\| `(penstock [a-z -]+)` \|", README, flags=re.MULTILINE))
    used = {
        (place(page), line)
        for page in documents()
        for line in re.findall(r"^\$ (penstock .+)$", page.read_text(), flags=re.MULTILINE)
    }
    assert listed
    assert used
    assert [line for line in used if not any(f"{line[1]} ".startswith(f"{name} ") for name in listed)] == []
