"""Receipts: a command to several drains ends well only where all of them took it."""

import pytest

from orchestrator.cli.receipts import exit_of_each
from orchestrator.exit_code import ExitCode


@pytest.mark.parametrize(
    ("taken", "code"),
    [
        ((True, True), ExitCode.DONE),
        ((True, False), ExitCode.INTERNAL),
        ((False, True), ExitCode.INTERNAL),
    ],
)
def test_a_drain_that_did_not_take_the_command_is_seen_in_the_exit_code(
    taken: tuple[bool, ...], code: ExitCode
) -> None:
    """A second round of readers: `drain end` ended with 0 while one of two drains did not answer."""
    receipts = [{"accepted": accepted, "sentence": "gw-1: until 12:00 UTC"} for accepted in taken]
    assert exit_of_each(receipts).exit_code == code
