"""What an adoption refuses for what stays behind is a whole sentence that says what to do."""

import pytest

from activities.drivers.runtime.host.adoption import LONGEST_LOSS, loss
from policies.model.adoption import OwnLine
from policies.model.value import sentence

KEYS = ("config-per-group", "default-group-config", "connect-script", "disconnect-script", "acct", "auth")


def lines(*keys: str) -> list[OwnLine]:
    why = "/etc/ocserv/somewhere is a file of this host, and a release has its own root"
    return [OwnLine(number=number, key=key, reason=why) for number, key in enumerate(keys, start=7)]


@pytest.mark.parametrize("count", range(1, len(KEYS) + 1))
def test_the_sentence_is_whole_and_has_the_command_and_the_document(count: int) -> None:
    """Newcomer 13: it ended in "Say `--…" after the reasons of two lines."""
    said = loss("gw-1", lines(*KEYS[:count]))
    assert said == sentence(said)
    assert len(said) <= LONGEST_LOSS
    assert '"What an adoption leaves behind" in docs/releases.md' in said
    assert "--without config-per-group" in said
    assert said.endswith("; --dry-run has every reason")


def test_of_many_lines_as_many_are_named_as_fit_and_the_others_counted() -> None:
    """Newcomer 13."""
    said = loss("gw-1", lines(*(f"key-{number}" for number in range(60))))
    assert len(said) <= LONGEST_LOSS
    assert "key-0 (line 7), key-1 (line 8)" in said
    assert " more. Bring it" in said


def test_a_section_is_quoted_for_the_shell_and_a_key_that_stands_twice_is_named_once() -> None:
    """Newcomer 13: what is printed can be typed."""
    said = loss("gw-1", lines("[vhost:www.example.com]", "auth", "auth"))
    assert "--without '[vhost:www.example.com]' --without auth;" in said
    assert said.count("auth (line 8)") == 1
