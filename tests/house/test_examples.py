"""The examples are files that penstock itself takes, and they show every key there is."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysequoia
import pytest
import yaml

from activities.files import PlainLoader
from deploy.lab.signer import LabSigner
from deploy.reference.__main__ import FILES
from deploy.reference.models import Section, sections
from orchestrator.settings import Settings
from tests.fakes.authority import EnterpriseCa
from tests.house.tree import ROOT

EXAMPLES = ROOT / "deploy/examples"
PLACEHOLDER = re.compile(r'fingerprint: "([0-9A-F]{40})"')


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A folder with the examples, and beside them the certificates that trust.yaml names, whose are real."""
    for path in EXAMPLES.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/etc/penstock/", f"{tmp_path}/"))
    trust = (tmp_path / "trust.yaml").read_text()
    for name, placeholder in zip(("ana", "ben"), PLACEHOLDER.findall(trust), strict=True):
        certificate = pysequoia.Tsk.generate(name).extract_certificate()
        (tmp_path / f"{name}.asc").write_bytes(bytes(certificate))
        trust = trust.replace(placeholder, certificate.fingerprint.upper())
    (tmp_path / "corporate-roots.pem").write_bytes(EnterpriseCa(tmp_path / "ca").roots.read_bytes())
    root = LabSigner(tmp_path / "signer").trusted_root_path.read_bytes()
    (tmp_path / "trusted_root.json").write_bytes(root)
    trust = trust.replace("0" * 64, hashlib.sha256(root).hexdigest())
    (tmp_path / "trust.yaml").write_text(trust)
    return tmp_path


def checked(folder: Path, *files: str) -> "subprocess.CompletedProcess[str]":
    """What `penstock check` says there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "check", *files, "-o", "jsonl"],
        cwd=ROOT,
        env=kept | {"PENSTOCK_STATE": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_installation_of_the_examples_is_read_without_a_complaint(installation: Path) -> None:
    done = checked(installation)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("penstock.toml", "fleet.yaml", "gates.yaml", "trust.yaml", "people.yaml"):
        assert f"{installation}/{name}" in done.stdout


def test_every_example_that_is_named_is_read_without_a_complaint(installation: Path) -> None:
    named = sorted(str(path) for path in installation.glob("*.yaml"))
    assert len(named) == len(list(EXAMPLES.glob("*.yaml"))) > 10
    done = checked(installation, *named)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for path in named if path not in done.stdout] == []


def test_an_example_with_a_mistake_is_told_by_its_line(installation: Path) -> None:
    people = installation / "people.yaml"
    people.write_text(people.read_text().replace("system_users", "sistem_users", 1))
    done = checked(installation)
    assert done.returncode == 2
    assert "people[0] has no key sistem_users; did you mean system_users?" in done.stdout


def test_a_setting_that_there_is_not_is_told_with_those_there_are(installation: Path) -> None:
    settings = installation / "penstock.toml"
    settings.write_text(f'{settings.read_text()}\nzzz = "x"\n')
    done = checked(installation)
    assert done.returncode == 2
    assert "there is no setting zzz; known settings are temporal_address, " in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_an_example_shows_every_key_of_its_file(name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    content: Any = yaml.load(text, Loader=PlainLoader)
    comments = " ".join(re.findall(r"#(.*)", text))
    absent = [
        f"{section.places[0]}: {key.name}"
        for section in sections(FILES[name])
        for key in section.keys
        if not any(key.name in shown for shown in _shown(content, section))
        and not re.search(rf"\b{key.name}\b", comments)
    ]
    assert absent == []


def test_the_settings_example_shows_every_setting_and_nothing_else() -> None:
    text = (EXAMPLES / "penstock.toml").read_text()
    everything = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    assert set(tomllib.loads(everything)) == set(Settings.model_fields)


def _shown(content: Any, section: Section) -> Iterator[dict[str, Any]]:
    """Yield the mappings of the example that stand in a section's places, and are of its kind."""
    found: list[Any] = []
    for place in section.places:
        here = [content]
        for step in re.findall(r"[\w]+|\[\]", place):
            here = [inner for one in here for inner in _below(one, step)]
        found += here
    kind = next((key.kind.strip("`") for key in section.keys if key.name == "kind" and not key.default), None)
    yield from (one for one in found if isinstance(one, dict) and one.get("kind") == kind)


def _below(value: Any, step: str) -> list[Any]:
    if step == "[]":
        return list(value) if isinstance(value, list) else []
    if not isinstance(value, dict):
        return []
    return list(value.values()) if step == "NAME" else [value[step]] if step in value else []
