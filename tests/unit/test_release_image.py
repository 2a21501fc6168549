"""A release names its image by one digest, and costs releases without one nothing."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.publishing.builder import ReleaseLabels, build_release
from policies.model.refusals import ManifestInvalid, SubjectMismatch
from policies.trust.statements import parse_release
from tests.fakes.trees import small_tree

IMAGE = "ab" * 32


def _statement(folder: Path, image: str) -> bytes:
    day = datetime(2026, 1, 2, tzinfo=UTC)
    labels = ReleaseLabels(product="gw", version="1.0", issued_at=day, image=image)
    return build_release(*small_tree(folder), labels, folder / "blobs").statement


def test_a_release_names_its_image_in_the_form_that_code_compares(tmp_path: Path) -> None:
    manifest = parse_release(_statement(tmp_path, f"sha256:{IMAGE}"))
    assert (manifest.image, manifest.image_digest) == (IMAGE, f"sha256:{IMAGE}")


def test_a_release_without_an_image_does_not_even_have_the_word(tmp_path: Path) -> None:
    statement = _statement(tmp_path, "")
    assert "image" not in json.loads(statement)["predicate"]
    assert parse_release(statement).image_digest is None


def test_the_statement_speaks_about_the_image_as_admission_controllers_ask(tmp_path: Path) -> None:
    subjects = json.loads(_statement(tmp_path, IMAGE))["subject"]
    assert {"name": "image", "digest": {"sha256": IMAGE}} in subjects


def test_a_statement_that_speaks_about_another_image_is_refused(tmp_path: Path) -> None:
    statement = json.loads(_statement(tmp_path, IMAGE))
    statement["predicate"]["image"] = "cd" * 32
    with pytest.raises(SubjectMismatch, match="image"):
        parse_release(json.dumps(statement).encode())


@pytest.mark.parametrize("image", [f"sha256:{IMAGE}", IMAGE[:-1], IMAGE.upper(), "", "latest", 5])
def test_an_image_is_named_by_64_digits_or_not_at_all(tmp_path: Path, image: object) -> None:
    statement = json.loads(_statement(tmp_path, IMAGE))
    statement["predicate"]["image"] = image
    with pytest.raises(ManifestInvalid):
        parse_release(json.dumps(statement).encode())
