"""`penstock config start` begins a change as `upgrade start` does, and follows it only with --wait."""

from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import config
from orchestrator.exit_code import ExitCode
from policies.model.value import digest_of

BEGUN = {"change": "edge-7"}
ENDED = {"change": {"why": "3 of 3 gateways use the settings"}}


class OneAnswer:
    """An API that begins the change edge-7 of the fleet edge, which has ended when it is asked about."""

    def surveying(self) -> "OneAnswer":
        return self

    def post(self, *_: str, **__: Any) -> Any:
        return BEGUN

    def get(self, *_: str) -> Any:
        return ENDED


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which changes have been followed to their end, which is a rollback."""
    found = list[str]()

    def follow(_: object, fleet: str, begun: dict[str, str], *__: object) -> ExitCode:
        found.append(f"{fleet} {begun['change']}")
        return ExitCode.ROLLED_BACK

    monkeypatch.setattr(config, "Api", OneAnswer)
    monkeypatch.setattr(config, "follow_begun", follow)
    return found


def started(*options: str) -> Result:
    plan = ("--plan", digest_of(b"plan"))
    return CliRunner().invoke(
        config.app, ["start", "edge", "--reason", "second name server", *plan, *options]
    )


def test_a_change_of_settings_is_named_and_not_waited_for(followed: list[str]) -> None:
    said = started()
    assert (said.exit_code, followed) == (ExitCode.DONE, [])
    assert "edge-7 started. Follow it: penstock watch edge" in said.output
    assert started("-o", "name").stdout == "edge-7\n"


def test_a_change_of_settings_is_followed_to_its_end_where_that_is_meant(followed: list[str]) -> None:
    said = started("--wait")
    assert (said.exit_code, followed) == (ExitCode.ROLLED_BACK, ["edge edge-7"])
    assert "3 of 3 gateways use the settings" in said.stdout
