"""What somebody else said, as one line that harms no terminal, log or payload."""

from hypothesis import example, given
from hypothesis import strategies as st

from policies.model.value import sentence


@given(st.text(), st.integers(1, 600))
@example("\x1b[2Jall is well\r\nINFO promoted", 500)
@example("a" * 700_000, 500)
def test_a_sentence_is_one_printable_line_of_bounded_length(said: str, most: int) -> None:
    found = sentence(said, most)
    assert found.isprintable()
    assert len(found) <= most
    assert sentence(found, most) == found


def test_what_is_a_sentence_already_stays_as_it_is() -> None:
    assert sentence("gw-1 has no free slot: größer als 4 ≤ 5") == "gw-1 has no free slot: größer als 4 ≤ 5"


def test_what_is_cut_shows_it() -> None:
    assert sentence("twelve words", 8) == "twelve …"


def test_a_line_that_is_one_already_is_not_made_anew() -> None:
    """Gateways tell hundreds of lines of settings, and reconcile reads those of thousands of them."""
    said = "route = 10.1.0.0/255.255.0.0"
    assert sentence(said) is said
