"""What a page shows: its elements with their text, as people read them, however that is spelled in HTML."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})


@dataclass
class Element:
    """One element of a page, with what is in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """What people read in it, in one line."""
        return " ".join("".join(self._texts()).split())

    def all(self, tag: str, kind: str | None = None) -> "Iterator[Element]":
        """Yield each element of that tag, and of that class if one is given, in the order of the page."""
        for one in self.content:
            if isinstance(one, Element):
                if one.tag == tag and (kind is None or kind in one.attributes.get("class", "").split()):
                    yield one
                yield from one.all(tag, kind)

    def told(self) -> dict[str, str]:
        """Return what its lists of terms say, by term."""
        return {
            term.text: said.text
            for one in self.all("dl", "told")
            for term, said in zip(one.all("dt"), one.all("dd"), strict=True)
        }

    def _texts(self) -> Iterator[str]:
        for one in self.content:
            if isinstance(one, str):
                yield one
            elif one.tag not in {"script", "style", "title"}:
                yield from one._texts()


class _Reader(HTMLParser):
    """Builds elements; a page that closes what it never opened is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        """End the innermost element, which has to be of that tag."""
        closed = self.open.pop()
        assert closed.tag == tag, f"</{tag}> closes <{closed.tag}>"

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.open[-1].content.append(data)


def shown(page: str) -> Element:
    """Return what a page shows; AssertionError where its elements are not nested."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is never closed"
    return reader.open[0]
