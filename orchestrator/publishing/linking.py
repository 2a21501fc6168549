"""What programs of a root folder load: their loader and libraries, found as the loader would find them.

Nothing of the folder runs, and none of its links leads out of it: it may be another processor's, and a
stranger's. glibc's order (ld.so(8)) without its cache, which a release does not carry: the paths of the
file itself, those of the program, then the folders built into every loader.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from policies.model.errors import BadInput
from policies.model.tree_path import place_of

if TYPE_CHECKING:
    from elftools.elf.dynamic import DynamicSegment

MAGIC = b"\x7fELF"
PROCESSORS = {
    "EM_X86_64": "amd64",
    "EM_AARCH64": "arm64",
    "EM_386": "386",
    "EM_ARM": "arm",
    "EM_RISCV": "riscv64",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
}
"""Processors by the name in an ELF header, as platforms spell them."""
FOLDERS = ("lib", "usr/lib", "lib64", "usr/lib64")
"""Where every loader looks; Debian's look in a folder of the processor's name below these, too."""


@dataclass(frozen=True)
class Asked:
    """What one ELF file asks for."""

    processor: str
    loader: str | None
    libraries: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    """Something that a file asks for and the folder does not have."""

    wanted: str
    by: str

    def __str__(self) -> str:
        return f"{self.wanted} (needed by {self.by})"


@dataclass
class Closure:
    """Every file that the programs need, by its path in the folder, and what is not there."""

    found: set[str] = field(default_factory=set)
    missing: list[Missing] = field(default_factory=list)
    processors: set[str] = field(default_factory=set)


class Root:
    """A folder that is to be a program's root; paths are relative to it and never lead out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._links = _Links(path)
        self._asked: dict[str, Asked | None] = {}

    def place(self, path: str) -> str:
        """Return where the path leads inside the root, through every link on its way.

        Raises:
            BadInput: it leads out of the root, or in a circle.
        """
        try:
            return place_of(path.lstrip("/"), self._links)
        except ValueError as error:
            raise BadInput(f"{self.path}: {error}") from error

    def has(self, path: str) -> bool:
        """Return whether there is a file, as a process with this root would see it."""
        return (self.path / self.place(path)).is_file()

    def files(self, path: str) -> tuple[str, ...]:
        """Return every file there, or below there, that a process with this root would see, by its place.

        Raises:
            BadInput: a link leads out of the root, or in a circle.
        """
        found, folders, waiting = dict[str, None](), set[str](), [path]
        while waiting:
            place = self.place(waiting.pop())
            if (self.path / place).is_file():
                found[place] = None
            elif (self.path / place).is_dir() and place not in folders:
                folders.add(place)
                names = sorted((one.name for one in (self.path / place).iterdir()), reverse=True)
                waiting += [f"{place}/{name}" for name in names]
        return tuple(found)

    def asked(self, path: str) -> Asked | None:
        """Return what an ELF file asks for; None for a file of another kind.

        Raises:
            BadInput: the file begins like ELF and is damaged.
        """
        place = self.place(path)
        if place not in self._asked:
            self._asked[place] = _read(self.path / place)
        return self._asked[place]

    def closure(self, programs: Sequence[str], modules: Iterable[str] = ()) -> Closure:
        """Return all that these programs, and modules of theirs, load before their first line runs.

        A module is opened later by the first program, and finds libraries as that one does.

        Raises:
            BadInput: one of the files is damaged.
        """
        closure = Closure()
        for program in programs:
            if not self.has(program):
                closure.missing.append(Missing(program, "whoever starts the daemon"))
                continue
            self._follow(program.lstrip("/"), program, closure)
        if not closure.missing:
            for module in modules:
                self._follow(module.lstrip("/"), programs[0], closure)
        return closure

    def _follow(self, first: str, program: str, closure: Closure) -> None:
        asked, main = self.asked(first), self.asked(program)
        if asked is None:
            self._add_interpreter(first, closure)
            return
        main = main or asked
        waiting, names = [first], dict[str, str]()
        while waiting:
            path = waiting.pop()
            asked = self.asked(path)
            if path in closure.found or asked is None:
                continue
            closure.found.add(path)
            closure.processors.add(asked.processor)
            if asked.loader is not None and self.has(asked.loader):
                loader = asked.loader.lstrip("/")
                names[PurePosixPath(loader).name] = (
                    loader  # libraries ask for it, too, and it is there already
                )
                closure.found.add(loader)
            elif asked.loader is not None:
                closure.missing.append(Missing(asked.loader, path))
            for library in asked.libraries:
                found = names.get(library) or self._library(library, path, asked, main, program)
                if found is None:
                    closure.missing.append(Missing(library, path))
                else:
                    names[library] = found
                    waiting.append(found)

    def _add_interpreter(self, script: str, closure: Closure) -> None:
        """Have what runs a script counted, too: without it the script is `not found`."""
        closure.found.add(script)
        with (self.path / self.place(script)).open("rb") as file:
            first = file.readline(256)
        if first.startswith(b"#!") and (words := first[2:].split()):
            interpreter = words[0].decode(errors="replace").lstrip("/")
            if not self.has(interpreter):
                closure.missing.append(Missing(f"/{interpreter}", script))
            elif self.asked(interpreter) is None:
                closure.found.add(interpreter)
            else:
                self._follow(interpreter, interpreter, closure)

    def _library(self, name: str, by: str, asked: Asked, main: Asked, program: str) -> str | None:
        if "/" in name:
            return name.lstrip("/") if self.has(name) else None
        own = [_origin(path, by) for path in asked.paths]
        mains = [_origin(path, program) for path in main.paths]
        for folder in (*own, *mains, *self._folders()):
            path = f"{folder}/{name}".lstrip("/")
            if self.has(path):
                found = self.asked(path)
                if found is not None and found.processor == asked.processor:
                    return path
        return None

    def _folders(self) -> Iterator[str]:
        for folder in FOLDERS:
            yield folder
            place = self.path / self.place(folder)
            if place.is_dir():
                yield from (f"{folder}/{one.name}" for one in sorted(place.glob("*-linux-*")))


class _Links(Mapping[str, str]):
    """The links of a folder, read when they are asked for; absolute ones are meant from the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getitem__(self, path: str) -> str:
        target = str((self._root / path).readlink()) if (self._root / path).is_symlink() else None
        if target is None:
            raise KeyError(path)
        return f"{'../' * path.count('/')}{target.lstrip('/')}" if target.startswith("/") else target

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


def _origin(path: str, by: str) -> str:
    """Return a path of a file's own, with the folder where that file is where it says so."""
    folder = PurePosixPath("/", by).parent.as_posix()
    return path.replace("${ORIGIN}", folder).replace("$ORIGIN", folder).lstrip("/")


def _read(path: Path) -> Asked | None:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        from elftools.elf.dynamic import DynamicSegment  # noqa: PLC0415 - loaded where releases are made
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415
        from elftools.elf.segments import InterpSegment  # noqa: PLC0415

        try:
            elf = ELFFile(file)
            loader, libraries, paths = None, list[str](), list[str]()
            for segment in elf.iter_segments():
                if isinstance(segment, InterpSegment):
                    loader = segment.get_interp_name()
                if isinstance(segment, DynamicSegment):
                    libraries += _strings(segment, "needed")
                    own = _strings(segment, "rpath") + _strings(segment, "runpath")
                    paths += [path for listed in own for path in listed.split(":")]
            kind = elf.header.e_machine
        except Exception as error:
            raise BadInput(f"{path} is a damaged program or library: {type(error).__name__}") from error
    return Asked(PROCESSORS.get(kind, str(kind)), loader, tuple(libraries), tuple(filter(None, paths)))


def _strings(segment: "DynamicSegment", kind: str) -> list[str]:
    """Return the texts of one kind of entry, which the library keeps under the kind's own name."""
    return [str(getattr(tag, kind)) for tag in segment.iter_tags(f"DT_{kind.upper()}")]
