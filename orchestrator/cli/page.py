"""Opening the page: a link that logs in whoever is on the orchestrator's host, once."""

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.words.times import moment


def page(output: OutputOption = Output.TABLE) -> None:
    """Print the page's address, which logs you in there once; to be opened in a browser."""
    link = Api().post("login", "links", body={})
    lines = (link["url"], f"It logs you in as {link['person']}, once, until {moment(link['expires'])}.")
    emit(output, "LoginLink", link, lambda: say(*lines), names=[link["url"]])
