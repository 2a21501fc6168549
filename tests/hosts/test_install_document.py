"""docs/install.md stays short, and says of every step on which host it is done."""

from tests.hosts.install_document import CONTROL, GATEWAY, steps

MOST_COMMANDS = 15


def test_the_first_gateway_is_adopted_with_fifteen_commands_or_fewer() -> None:
    commands = [step.command for step in steps() if step.command]
    assert 5 < commands.index("penstock fleet adopt edge gw-1") < MOST_COMMANDS


def test_every_step_of_the_document_has_its_host_and_its_file() -> None:
    assert {step.host for step in steps()} == {CONTROL, GATEWAY}
    assert [step.file for step in steps() if step.content] == [
        "/etc/penstock/fleet.yaml",
        "/etc/penstock/trust.yaml",
        "/etc/penstock/agent.yaml",
        "/etc/prometheus/prometheus.yml",
        "/etc/nginx/conf.d/releases.conf",
        "/etc/penstock/trust.yaml",
        "/root/ocserv.conf.template",
    ]
