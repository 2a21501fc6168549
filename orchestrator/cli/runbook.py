"""Runbooks on the terminal: which there are, and a page with a fleet's name and call chain in it."""

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.words.runbooks import site_lines
from policies.model.errors import BadInput, Unavailable
from policies.runbooks import PAGES, runbook_of

if TYPE_CHECKING:
    from policies.model.site import Site

app = group("Runbooks: what to do when something needs you.")
PLACES = (
    Path(__file__).parents[2] / "runbooks",
    Path("/usr/share/doc/penstock/runbooks"),
    Path(sys.prefix) / "share/doc/penstock/runbooks",
)
"""Where the pages lie: beside the code of a checkout, or where a package puts its documents."""

_HIDDEN = re.compile(r"^<!--.*?-->\n*", re.MULTILINE | re.DOTALL)
_FLEET = re.compile(r"\bedge\b")


@app.command("list")
def list_pages(output: OutputOption = Output.TABLE) -> None:
    """List the pages, each with what one sees who needs it."""
    site, wrong = _site()
    rows = [
        {"page": name, "see": see, "link": site.address_of(name) if site else None}
        for name, see in PAGES.items()
    ]

    def table() -> None:
        lines = [(name, see.replace("`", "")) for name, see in PAGES.items()]
        print_table(("PAGE", "WHAT YOU SEE"), lines, "There is none.")
        if wrong:
            say("", wrong)

    emit(output, "RunbookList", rows, table, rows=rows, names=list(PAGES))


@app.command("show")
def show(
    page: Annotated[str, typer.Argument(metavar="PAGE", help="a page, as a status names it")],
    fleet: Annotated[
        str | None, typer.Argument(help="the fleet whose name the commands get, and whose people are named")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print a page with a fleet's name in its commands, and whom the site file says to wake."""
    if page not in PAGES:
        raise BadInput(f"there is no runbook {page}; {_meant_by(page)}")
    text = _page(page)
    site, wrong = _site()
    text = _FLEET.sub(fleet, text) if fleet is not None else text
    people = site_lines(site.model_dump(mode="json"), [*_called(site, fleet)]) if site else []
    found = {"page": page, "fleet": fleet, "text": text, "site": people}
    link = site.address_of(page) if site else None
    found["link"] = link
    found["wrong"] = wrong

    def shown() -> None:
        if wrong:
            say(wrong, "")
        say(*text.rstrip().splitlines(), *([""] if people else []), *people)
        if link:
            say(f"Link: {link}")

    emit(output, "Runbook", found, shown, names=[page])


def _meant_by(word: str) -> str:
    """Return which page a state or a part of a name has most likely meant, or who names all pages."""
    state = "_".join(word.replace("-", "_").lower().split())
    page, like = runbook_of(state), word.lower()
    fits = [page] if page is not None else [name for name in PAGES if like in name]
    fits = fits or get_close_matches(like, PAGES, n=2, cutoff=0.7)
    return f"do you mean {' or '.join(fits)}?" if fits else "penstock runbook list names them"


def _called(site: "Site", fleet: str | None) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in site.called_for(fleet)]


def _page(name: str) -> str:
    for place in PLACES:
        path = place / f"{name}.md"
        if path.is_file():
            return _HIDDEN.sub("", path.read_text())
    raise Unavailable(
        f"the pages are not on this host; {name} lies in the folder runbooks of penstock's source"
    )


def _site() -> "tuple[Site | None, str | None]":
    """Return what this site adds, and what is wrong with its file: who was woken reads the page anyway."""
    from activities.files import load  # noqa: PLC0415 - other commands do without
    from orchestrator.settings import Settings  # noqa: PLC0415 - other commands do without
    from policies.model.site import Site  # noqa: PLC0415 - other commands do without

    place = Settings().site
    if place is None or place == Path():  # PENSTOCK_SITE= names none
        return None, None
    try:
        return load(place, Site), None
    except BadInput as error:
        return None, f"Whom to wake, logs and links are not known here: {error}"
