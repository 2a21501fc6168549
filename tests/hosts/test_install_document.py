"""docs/install.md stays short, and says of every step on which host it is done."""

from tests.hosts.install_document import CONTROL, GATEWAY, steps

MOST_COMMANDS = 15


def test_the_document_takes_fifteen_commands_or_fewer() -> None:
    assert 5 < len([step for step in steps() if step.command]) <= MOST_COMMANDS


def test_every_step_of_the_document_has_its_host_and_its_file() -> None:
    assert {step.host for step in steps()} == {CONTROL, GATEWAY}
    assert [step.file for step in steps() if step.content] == [
        "/etc/penstock/fleet.yaml",
        "/etc/penstock/trust.yaml",
        "/etc/penstock/agent.yaml",
    ]
