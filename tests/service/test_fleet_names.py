"""The fleet that a command names is the fleet that it means, or nothing happens."""

from pathlib import Path

import pytest

from orchestrator.exit_code import ExitCode
from tests.service.command_line import CommandLine

NAMING_A_FLEET = (
    ("status", "edge-us"),
    ("watch", "edge-us"),
    ("plan", "edge-us", "--to", "1.3.0"),
    ("fleet", "install", "edge-us", "--to", "1.3.0"),
    ("upgrade", "start", "edge-us", "--to", "1.3.0", "--reason", "why"),
    ("hold", "edge-us", "--reason", "why"),
    ("resume", "edge-us", "--reason", "why"),
    ("promote", "edge-us", "--reason", "why"),
    ("abort", "edge-us", "--reason", "why"),
    ("rollback", "edge-us", "--reason", "why"),
    ("rollback", "edge-us", "--force", "--reason", "why"),
    ("approve", "edge-us", "--reason", "why"),
    ("reject", "edge-us", "--reason", "why"),
    ("gateway", "quarantine", "edge-us", "gw-1", "--reason", "why"),
    ("gateway", "return", "edge-us", "gw-1", "--reason", "why"),
    ("sessions", "edge-us"),
    ("drains", "edge-us"),
    ("drain", "extend", "edge-us", "--by", "30m", "--reason", "why"),
    ("drain", "end", "edge-us", "--reason", "why"),
    ("history", "edge-us"),
)


@pytest.mark.parametrize("arguments", NAMING_A_FLEET, ids=" ".join)
async def test_an_unknown_fleet_is_refused_with_the_names_of_the_known_ones(
    arguments: tuple[str, ...], penstock: CommandLine
) -> None:
    refused = await penstock(*arguments)
    assert refused.code == ExitCode.USAGE, refused
    assert "there is no fleet edge-us; there is core, edge" in refused.err


async def test_of_hundreds_of_fleets_a_refusal_names_the_first_and_counts_the_others(
    penstock: CommandLine, tmp_path: Path
) -> None:
    described = (tmp_path / "fleets" / "edge.yaml").read_text()
    for number in range(300):
        name = f"site-{number:03}"
        (tmp_path / "fleets" / f"{name}.yaml").write_text(described.replace("edge", name))
    refused = await penstock("status", "edge-us")
    assert "there is no fleet edge-us; there is core, edge, site-000 and 299 more" in refused.err


@pytest.mark.parametrize("command", ["hold", "rollback", "approve"])
async def test_a_reason_that_says_nothing_is_refused(command: str, penstock: CommandLine) -> None:
    refused = await penstock(command, "edge", "--reason", "  ")
    assert refused.code == ExitCode.USAGE, refused
    assert "--reason is empty" in refused.err


async def test_whoever_sees_several_fleets_names_one(penstock: CommandLine) -> None:
    refused = await penstock("status")
    assert refused.code == ExitCode.USAGE
    assert "say which fleet; there is core, edge" in refused.err
