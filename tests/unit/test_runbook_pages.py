"""What runbooks say that people will see: each line of it counts, and none goes untyped unnoticed."""

import re
from pathlib import Path

import pytest

from policies.rebuilding import TO_REPEAT
from policies.runbooks import PAGES as TABLE
from policies.runbooks import runbook_of, runbook_of_waiting
from tests.house.tree import ROOT
from tests.lab.runbook_commands import ELSEWHERE, OF_HOSTS, SILENT, WITHOUT_FAULT, typed_elsewhere
from tests.lab.runbook_pages import ANYTHING, PAGES, Typed, difference, prepared, typed


def as_printed(one: Typed) -> str:
    """What a command prints that does exactly what the page says."""
    return "\n".join(line.replace(ANYTHING, "something") for line in one.expected)


def test_the_table_names_the_pages_that_there_are() -> None:
    assert sorted(TABLE) == [page.stem for page in PAGES]
    words = ("held", "metrics_unavailable", "rolled_back", "stuck", "silent", "drain_held", "InstanceGone")
    assert {runbook_of(word) for word in words} <= set(TABLE)
    assert runbook_of("promoted") is None


def test_whatever_waits_for_a_person_has_a_page() -> None:
    found = {
        runbook_of_waiting(verdict, gate)
        for verdict in (None, "metrics_unavailable", "conflicting", "unhealthy")
        for gate in (None, "identity", "connect-success")
    }
    assert found == {
        "metrics-blind",
        "wrong-version-running",
        "held-decide",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_changed_expected_line_is_noticed(page: Path) -> None:
    for one in typed(page):
        said = as_printed(one)
        assert difference(one.expected, said) is None
        for number, line in enumerate(one.expected):
            if line.strip() == ANYTHING:
                continue
            beside = [near.strip() for near in one.expected]
            others = [[f"{line} more"], ["nobody prints this"]]
            others += [[]] if ANYTHING not in beside else []  # left out, it may be what `…` stands for
            for other in others:
                changed = [*one.expected[:number], *other, *one.expected[number + 1 :]]
                assert difference(changed, said) is not None, f"{one.command}: {line} became {other}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_says_what_it_prints_or_which_test_types_it(page: Path) -> None:
    for one in typed(page):
        test = typed_elsewhere(page.stem, one.command, on_host=one.on_host)
        assert one.expected or one.code or test or one.command.startswith(SILENT), (
            f"{one.command} says nothing of what it prints"
        )


def test_whatever_no_lab_shows_is_typed_by_the_test_that_is_named() -> None:
    for (page, command), test in ELSEWHERE.items():
        assert command.split()[-1].replace("-", "_") in (ROOT / test).read_text().replace("-", "_"), command
        assert (ROOT / "runbooks" / f"{page}.md").is_file()
        assert any(one.command.startswith(command) for one in typed(ROOT / "runbooks" / f"{page}.md")), (
            command
        )
    for page, test in OF_HOSTS.items():
        assert f"runbooks/{page}.md" in (ROOT / test).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_is_typed_in_a_lab_that_has_its_fault_or_the_reason_is_named(page: Path) -> None:
    does = [step for step in prepared(page) if not step.startswith("$ penstock sessions")]
    assert bool(does) != (page.stem in WITHOUT_FAULT)
    for named in re.findall(r"tests/[\w/.]+", WITHOUT_FAULT.get(page.stem, "")):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_index_that_a_page_has_people_make_is_signed_by_the_next_command(page: Path) -> None:
    """An index is offered when it is made: until it is signed, hosts refuse every new release."""
    commands = [one.command for one in typed(page)]
    made = [at for at, one in enumerate(commands) if one.startswith("penstock release index")]
    assert [
        at for at in made if not "".join(commands[at + 1 : at + 2]).startswith("penstock release sign")
    ] == []


OF_PACKAGES = {unit.stem for unit in (ROOT / "deploy/debian").glob("*/lib/systemd/system/*.service")}
OF_EXAMPLES = {unit.stem for unit in (ROOT / "deploy").glob("*/*.service")}
"""Units that administrators copy, and that pages may name."""
HANDLED = {
    "agent-silent": {"penstock-agent"},
    "certificate-ends": {"penstock", "penstock-api", "penstock-worker"},
    "control-host-lost": {"penstock"},
    "ledger-restore": {"penstock-backup", "penstock", "penstock-api", "penstock-relay", "penstock-worker"},
    "penstock-upgrade": {"penstock-agent"},
    "removal": {"penstock-agent"},
    "settings-stuck": {"penstock-agent"},
    "tunnel-passes-nothing": {"penstock-agent"},
}
"""Pages that have an operator stop or start a process of penstock, with the units to name."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_the_units_that_it_has_people_stop_or_start_as_the_packages_name_them(
    page: Path,
) -> None:
    """At 3 a.m. a page said 'stop every worker, API and relay', and no command."""
    lines = re.findall(r"systemctl (?:stop|start|restart|status|disable --now) ([a-z -]+)", page.read_text())
    named = {unit for line in lines for unit in line.split()}
    assert named <= OF_PACKAGES | OF_EXAMPLES
    assert named >= HANDLED.get(page.stem, set())


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (["a …"], "b"),
        (["a", "b"], "a"),
        (["a"], "a\nb"),
        (["a", "b"], "b\na"),
        (["…", "b"], "a\nb\nc"),
        ([], "a"),
    ],
)
def test_what_is_missing_too_much_or_out_of_order_is_a_difference(expected: list[str], said: str) -> None:
    assert difference(expected, said) is not None


@pytest.mark.parametrize(
    ("expected", "said"),
    [(["a … c"], "a  b   c\n"), (["…"], ""), (["…", "b", "…"], "a\nb\nc\nd"), (["a", "…", "d"], "a\nb\nd")],
)
def test_what_varies_may_vary_where_the_page_says_so(expected: list[str], said: str) -> None:
    assert difference(expected, said) is None


@pytest.mark.parametrize(
    ("page", "gone_for_good"),
    [("ledger-restore", ()), ("ledger-lost", ("penstock token revoke", "penstock chat unlink"))],
)
def test_a_page_of_a_lost_ledger_has_all_that_is_repeated_before_machines_start_again(
    page: str, gone_for_good: tuple[str, ...]
) -> None:
    """Pins and freezes were in neither page, and a token of role ci started what had been rolled back."""
    before, confirms, _ = (ROOT / "runbooks" / f"{page}.md").read_text().partition("$ penstock unpin edge")
    assert confirms
    for one in TO_REPEAT:
        what, _, how = (part.partition(",")[0] for part in one.partition(": "))
        assert how in gone_for_good or (what in before and how in before)
