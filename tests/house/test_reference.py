"""The reference is what the code says, of everything that people can write, set and type."""

import re

import pytest

from deploy.reference.__main__ import FILES, FOLDER, STATEMENTS, pages
from deploy.reference.models import sections
from tests.house.tree import modules

PAGES = pages()
MODELS = [*FILES.values(), *(model for model, _ in STATEMENTS.values())]


def test_the_reference_is_as_the_code_has_it() -> None:
    stale = [name for name, text in PAGES.items() if (FOLDER / name).read_text() != text]
    assert stale == [], "write it again: ./run reference"


def test_every_page_of_the_reference_is_generated_or_the_index_which_names_all() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*PAGES, "index.md"}
    index = (FOLDER / "index.md").read_text()
    assert [name for name in PAGES if f"]({name})" not in index] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_key_setting_and_argument_says_what_it_means(name: str) -> None:
    rows = [line for line in PAGES[name].splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_every_value_is_told_in_words_and_never_by_a_pattern() -> None:
    kinds = [key.kind for model in MODELS for section in sections(model) for key in section.keys]
    assert [kind for kind in kinds if "text that matches" in kind] == []


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    no_variables = {"PENSTOCK_COMPLETE", "PENSTOCK_", "PENSTOCK_METRICS_", "PENSTOCK_WATCH"}
    code = "".join(path.read_text() for path in modules("orchestrator", "activities"))
    read = set(re.findall(r"\bPENSTOCK_[A-Z_]*\b", code)) - no_variables
    assert len(read) > 10
    assert [name for name in sorted(read) if f"`{name}`" not in PAGES["settings.md"]] == []


def test_every_model_of_a_file_is_told_as_a_section_of_its_own() -> None:
    headings = re.findall(r"^## (.+)$", PAGES["gates.md"], flags=re.MULTILINE)
    assert "`gates[]` (`kind: rate`)" in headings
    assert "`gates[].margin`" in headings
