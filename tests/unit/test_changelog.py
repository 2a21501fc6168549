"""A changelog shows exactly what it says, is bounded, and costs releases without one nothing."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.publishing.builder import ReleaseLabels, build_release
from policies.model.changelog import LONGEST, Changelog, headline
from policies.trust.statements import parse_release
from tests.fakes.trees import small_tree

CHANGELOG: TypeAdapter[str] = TypeAdapter(Changelog)
BEFORE = "sha256:230d015a42d89d6ccdf9021e194057721565e5e9e28a0dace6131b7802ba1227"
"""What the penstock before changelogs made of this tree."""


@pytest.mark.parametrize(
    "odd", ["\x1b[2J", "\r", "\x00", "\x85", "\u202e", "\u200b", "\u2028", "\ue000", "\ud800"]
)
def test_what_shows_nothing_or_turns_text_around_is_refused_with_its_place(odd: str) -> None:
    with pytest.raises(ValidationError, match=rf"U\+{ord(odd[0]):04X} in line 2, character 3"):
        CHANGELOG.validate_python(f"fine\nno{odd}")


def test_text_of_every_language_fits_up_to_its_bound() -> None:
    for fine in ("", "# Title\n\n- one\n\t- two", "Größe, 大きさ, حجم", "é" * (LONGEST // 2)):
        assert CHANGELOG.validate_python(fine) == fine
    with pytest.raises(ValidationError, match=f"has {LONGEST + 1} bytes"):
        CHANGELOG.validate_python("x" + "é" * (LONGEST // 2))


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        ("", ""),
        ("# 1.3.0\n\n- **faster** logins\n- more", "faster logins"),
        ("1.3.0\n=====\n", "1.3.0"),
        ("## only a heading", "only a heading"),
        ("word " * 100, f"{'word ' * 23}word…"),
    ],
)
def test_a_headline_is_the_first_line_that_says_something(changelog: str, said: str) -> None:
    assert headline(changelog) == said


def test_a_release_without_a_changelog_has_the_same_bytes_as_before(tmp_path: Path) -> None:
    day = datetime(2026, 11, 20, tzinfo=UTC)
    tree, template = small_tree(tmp_path)
    for path in tree.rglob("*"):  # whatever this process's umask
        if path.is_file() and not path.is_symlink():
            path.chmod(0o755 if path.name == "ocserv" else 0o644)

    def built(changelog: str) -> tuple[str, bytes]:
        labels = ReleaseLabels(product="gw", version="1.0", issued_at=day, notes="none", changelog=changelog)
        found = build_release(tree, template, labels, tmp_path / "blobs")
        return found.digest, found.statement

    assert built("")[0] == BEFORE
    assert parse_release(built("")[1]).changelog == ""
    assert parse_release(built("- said")[1]).changelog == "- said"
