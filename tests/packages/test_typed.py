"""What people type and read on a host: the command, its completion and its manual."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deploy.debian import environment
from deploy.debian.command_line import Node, whole_tree
from deploy.debian.completion import script
from deploy.debian.contents import PACKAGES
from deploy.debian.manual import page

TREE = whole_tree()
MOMENT = 1_700_000_000


def completed(line: str, folder: Path) -> set[str]:
    """Return what bash offers after this line."""
    (folder / "penstock.bash").write_text(script(TREE))
    typed = """
        source ./penstock.bash
        COMP_LINE="$1"; COMP_WORDS=($1); [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _penstock; printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "--norc", "-c", typed, "bash", line]
    environ = os.environ | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("penstock ag", {"agent"}),
        ("penstock agent en", {"enrol"}),
        ("penstock agent enrol --ce", {"--certificate"}),
        ("penstock status --output j", {"json", "jsonl"}),
        ("penstock ledger ba", {"backup"}),
        ("penstock agent run --config pen", {"penstock.bash"}),
    ],
)
def test_bash_completes_words_options_choices_and_files(line: str, offered: set[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == offered


def test_every_word_is_explained_by_the_page_of_one_package_with_all_its_options() -> None:
    for child in TREE.children:
        assert [one.explains(child.words[-1]) for one in PACKAGES].count(True) == 1
        text = page(child, MOMENT)
        for node in child.walk():
            for option in options(node):
                assert option.replace("-", "\\-") in text, f"{node.words} {option}"
    assert "PENSTOCK_LEDGER_URL" in page(TREE, MOMENT)


def options(node: Node) -> list[str]:
    return [name for one in node.options for name in one.opts]


def test_groff_finds_nothing_wrong_in_a_page(tmp_path: Path) -> None:
    for node in (TREE, *TREE.children):
        lines = page(node, MOMENT).splitlines()
        controls = [line for line in lines if line.startswith((".", "'"))]
        known = {".TH", ".SH", ".SS", ".TP", ".B", ".br"}
        assert {line.split(" ")[0] for line in controls} <= known, node.words


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody who may not read a file")
def test_who_may_not_read_the_settings_of_the_host_asks_the_api_at_its_socket() -> None:
    text = environment.COMMAND.read_text().replace("/usr/lib/@NAME@/bin/penstock", "env")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c"]
    with TemporaryDirectory() as folder:
        settings = Path(folder) / "default"
        settings.write_text("PENSTOCK_SOCKET=/elsewhere\nPENSTOCK_URL=https://a\n")
        Path(folder).chmod(0o755)
        settings.chmod(0o640)
        for said in ("PENSTOCK_SOCKET=/run/penstock/penstock.sock", "PENSTOCK_SOCKET=/mine"):
            given = [said] * (said == "PENSTOCK_SOCKET=/mine")
            command = ["env", *given, *nobody, text.replace("/etc/default/@NAME@", str(settings)), "penstock"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert [one for one in done.stdout.splitlines() if one.startswith("PENSTOCK_")] == [said]


def test_the_command_has_the_settings_of_its_host_unless_its_caller_says_otherwise(tmp_path: Path) -> None:
    settings = tmp_path / "default"
    settings.write_text(
        "# words\nPENSTOCK_STATE=/state\nPENSTOCK_URL='https://a b'\nOTHER=1\n#PENSTOCK_X=1\n"
    )
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$PENSTOCK_STATE|$PENSTOCK_URL|${OTHER-none}|$*"\n')
    program.chmod(0o755)
    text = environment.COMMAND.read_text()
    text = text.replace("/etc/default/@NAME@", str(settings)).replace(
        "/usr/lib/@NAME@/bin/penstock", str(program)
    )
    command = ["sh", "-c", text, "penstock", "status", "edge"]
    plain = {"PATH": os.environ["PATH"]}
    for environ, said in (
        (plain, "/state|https://a b|none|status edge\n"),
        (plain | {"PENSTOCK_STATE": "/mine"}, "/mine|https://a b|none|status edge\n"),
    ):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout == said
