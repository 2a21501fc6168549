"""`penstock runbook`: pages on the terminal, with what the site file adds."""

import asyncio
import json
from pathlib import Path

import pytest

from policies.runbooks import PAGES
from tests.service.command_line import CommandLine

SITE = """apiVersion: penstock/v1
contacts:
  - {name: network on call, role: gateways, reach: "+49 30 1234567", fleets: [core]}
  - {name: ana, role: release owner, reach: "#vpn-ops"}
logs:
  - {what: worker, where: journalctl -u penstock-worker}
runbooks: https://docs.example/penstock/runbooks
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path


async def test_every_page_is_listed_with_what_one_sees(penstock: CommandLine) -> None:
    said = await penstock("runbook", "list", "-o", "json")
    assert [one["page"] for one in json.loads(said.out)["data"]] == list(PAGES)


@pytest.mark.sweep
async def test_every_page_is_printed_with_the_fleets_name_in_its_commands(penstock: CommandLine) -> None:
    for page in PAGES:
        said = await penstock("runbook", "show", page, "core", "-o", "json")
        text = json.loads(said.out)["data"]["text"]
        assert text.startswith(f"# {page}\n")
        assert "<!--" not in text
        assert " edge " not in text


async def test_whom_to_wake_is_whoever_the_site_names_for_that_fleet(
    penstock: CommandLine, site: Path
) -> None:
    of_core = (await penstock("runbook", "show", "held-decide", "core", PENSTOCK_SITE=str(site))).out
    assert "1. network on call (gateways): +49 30 1234567" in of_core
    assert "2. ana (release owner): #vpn-ops" in of_core
    assert "worker: journalctl -u penstock-worker" in of_core
    assert "https://docs.example/penstock/runbooks/held-decide.md" in of_core
    of_edge = (await penstock("runbook", "show", "held-decide", "edge", PENSTOCK_SITE=str(site))).out
    assert "1. ana" in of_edge
    assert "network on call" not in of_edge


async def test_a_page_is_printed_whatever_is_wrong_with_the_site_file(
    penstock: CommandLine, site: Path
) -> None:
    await asyncio.to_thread(site.write_text, SITE.replace("contacts:", "contacs:"))
    said = await penstock("runbook", "show", "held-decide", "edge", PENSTOCK_SITE=str(site))
    assert said.code == 0, said.err
    assert "contacs" in said.out.splitlines()[0]
    assert "# held-decide" in said.out
    listed = await penstock("runbook", "list", PENSTOCK_SITE=str(site))
    assert (listed.code, "contacs" in listed.out) == (0, True)
    unset = await penstock("runbook", "show", "held-decide", "edge", PENSTOCK_SITE="")
    assert unset.out.startswith("# held-decide")


async def test_a_page_that_is_not_there_is_refused_with_where_they_are_listed(penstock: CommandLine) -> None:
    said = await penstock("runbook", "show", "nothing-like-it")
    assert said.code == 2
    assert "penstock runbook list" in said.err


@pytest.mark.parametrize(
    ("instead", "place"),
    [
        ("runbooks: ftp://docs.example", "runbooks"),
        ("boards: [{what: x, link: 'javascript:alert(1)'}]", "link"),
        ("phone: 110", "phone"),
    ],
)
async def test_a_wrong_site_file_is_named_with_its_key(
    penstock: CommandLine, site: Path, instead: str, place: str
) -> None:
    await asyncio.to_thread(site.write_text, f"apiVersion: penstock/v1\n{instead}\n")
    said = await penstock("check", str(site), "-o", "json")
    assert said.code == 2
    assert place in json.loads(said.out)["data"][0]["wrong"]


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("held", "held-decide"),
        ("ROLLBACK INCOMPLETE", "rollback-incomplete"),
        ("agent-stollen", "agent-stolen"),
    ],
)
async def test_who_writes_a_state_or_misspells_a_page_is_told_which_page_that_is(
    penstock: CommandLine, word: str, page: str
) -> None:
    said = await penstock("runbook", "show", word)
    assert said.code == 2
    assert page in said.err.partition("do you mean ")[2]
