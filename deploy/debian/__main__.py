"""Make the packages: `./run package`, from the lock and this checkout, the same bytes each time."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from deploy.debian import archive, bill, completion, documents, environment, manual, release_notes, sums
from deploy.debian.command_line import whole_tree
from deploy.debian.contents import PACKAGES, Package
from deploy.debian.lock import Locked, locked
from deploy.debian.wheel import ROOT, WHEELS, built
from policies.model.errors import PenstockError, Unavailable

MAINTAINER = "the penstock project <packages@penstock.invalid>"


def main() -> None:
    """Make the wheel and the packages in dist/, and print what was made."""
    parser = argparse.ArgumentParser(prog="./run package", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="folder for what is made (dist)")
    parser.add_argument("--sign-with", metavar="KEY", help="sign SHA256SUMS with this key of gpg")
    asked = parser.parse_args()
    try:
        made = make(asked.into.absolute(), epoch())
        made += sums.write(made, asked.sign_with)
    except PenstockError as error:
        sys.exit(f"package: {error}")
    for path in made:
        print(f"{path.stat().st_size:>12,}  {path}")


def epoch() -> int:
    """Return the time that all files get: SOURCE_DATE_EPOCH, else that of the commit."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is None:
        command = ["git", "log", "-1", "--format=%ct"]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    if not said.isdigit():
        raise Unavailable("the time of the commit is not known here; set SOURCE_DATE_EPOCH to its seconds")
    return int(said)


def make(into: Path, moment: int) -> list[Path]:
    """Make everything in the folder, and return it.

    Raises:
        PenstockError: Something is missing; the sentence says what.
    """
    into.mkdir(parents=True, exist_ok=True)
    wheel = built(into, moment)
    made = [wheel]
    for package in PACKAGES:
        requirements = locked(ROOT, package.requirements)
        environment.fetch(requirements, WHEELS)
        with tempfile.TemporaryDirectory(prefix="penstock-package-") as folder:
            tree = Path(folder) / package.name
            _lay_out(package, requirements, wheel, tree, moment)
            made.append(into / f"{package.name}_{version('penstock')}_amd64.deb")
            archive.write(tree, made[-1], moment)
        made.append(into / f"{package.name}_{version('penstock')}.cdx.json")
        made[-1].write_text(bill.bill(package.name, requirements, WHEELS, moment))
    return made


def _lay_out(
    package: Package, requirements: tuple[Locked, ...], wheel: Path, tree: Path, moment: int
) -> None:
    shutil.copytree(package.folder, tree)
    environment.install(package, requirements, WHEELS, wheel, tree)
    release_notes.write(package.name, tree, moment, MAINTAINER)
    documents.write(package, tree)
    bom = tree / "usr/share/doc" / package.name / "sbom.cdx.json"
    bom.write_text(bill.bill(package.name, requirements, WHEELS, moment))
    root = whole_tree()
    manual.write(tree / "usr/share/man/man1", root, moment, package.explains)
    # What both packages have lies in the folder of each; postinst's update-alternatives chooses.
    shared = tree / package.environment / "share"
    shared.mkdir()
    manual.write_page(shared, root, moment)
    (shared / "penstock.bash").write_text(completion.script(root))
    control = tree / "DEBIAN" / "control"
    facts = {
        "version": version("penstock"),
        "maintainer": MAINTAINER,
        "size": str(archive.size_of(tree)),
    }
    control.write_text(control.read_text().format(**facts))


if __name__ == "__main__":
    main()
