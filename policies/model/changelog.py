"""What a release's signers say that it changes: bounded plain text or Markdown, signed in its manifest."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator

from policies.model.value import sentence

LONGEST = 16_384
"""Bytes in UTF-8: a quarter of a manifest, whose tree needs the rest."""
LONGEST_HEADLINE = 120
_REFUSED = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Categories of characters that show nothing, turn what is shown around, or move where it stands. They are
the same in every version of Unicode; characters that are not assigned yet are left alone for that reason."""


def _plain(text: str) -> str:
    size = len(text.encode(errors="surrogatepass"))
    if size > LONGEST:
        raise ValueError(f"the changelog has {size} bytes; {LONGEST} at most")
    for number, line in enumerate(text.split("\n"), start=1):
        for place, one in enumerate(line, start=1):
            if one != "\t" and unicodedata.category(one) in _REFUSED:
                raise ValueError(f"the changelog has U+{ord(one):04X} in line {number}, character {place}")
    return text


Changelog = Annotated[str, AfterValidator(_plain)]
"""Text of lines that shows exactly what it says, on every terminal."""


def headline(changelog: str) -> str:
    """Return the first line that says something, without marks of Markdown; else the heading."""
    lines = [line.strip() for line in changelog.splitlines() if line.strip(" \t-=*#")]
    said = next((line for line in lines if not line.startswith("#")), lines[0] if lines else "")
    return sentence(said.lstrip("#*-+> \t").replace("**", "").replace("`", ""), LONGEST_HEADLINE)
