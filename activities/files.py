"""Read the files people write strictly, all of them here, and say where they are wrong.

Only plain YAML is understood: mappings, lists, strings, whole and decimal numbers, true, false and
null, as in the core schema of YAML 1.2 (section 10.3.2). `no` is a word, `1:30` is a word, a key
twice is an error, and so are anchors, tags and a second document.
"""

import difflib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from activities.drivers.rights import read_own, require_own
from policies.model.errors import BadInput
from policies.model.fleet import Fleet, Gateway
from policies.model.gates import GatePolicy, lint
from policies.model.patterns import PATTERNS
from policies.model.value import Value

W = TypeVar("W", bound=Value)
Location = tuple[str | int, ...]

LARGEST = 1 << 24
"""Bytes a file may have: 10,000 gateways take a quarter of it, and a mistaken path may name anything."""

MOST_VALUES = 1_000_000
"""Keys and values a file may have: 10,000 gateways take a third of it."""

MOST_KEYS = 10_000
"""Keys that one mapping may have."""

DEEPEST = 100
"""How far a file may nest, in brackets and in columns: libyaml's recursion ends the process further down."""

_BRACKET = re.compile(r"[][{}]")
_INDENTED = re.compile(r"^(?:[ ]|[-?:] )*", re.MULTILINE)


class PlainLoader(yaml.CSafeLoader):
    """A YAML reader that resolves nothing but the core schema; in C, for a fleet of thousands."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_FORMS = {
    "null": re.compile(r"^(?:null|~|)$"),
    "bool": re.compile(r"^(?:true|false)$"),
    "int": re.compile(r"^[-+]?[0-9]+$"),
    "float": re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
}
"""How the values of each tag are written."""

for tag, first in (
    ("null", ["n", "~", ""]),
    ("bool", ["t", "f"]),
    ("int", list("-+0123456789")),
    ("float", list("-+.0123456789")),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", _FORMS[tag], first)


def load(path: Path, model: type[W]) -> W:
    """Return the content of a YAML file as a word.

    Raises:
        BadInput: The file cannot be read, is not plain YAML, or is not what the model asks for;
            the sentence names file, line and key, and what to do.
    """
    return parse(_read(path), str(path), model)


def load_own(path: Path, model: type[W], *, of: int | None = None) -> W:
    """Return the content of a YAML file that only root and this process's user may write.

    The user of the number `of` may own it, too, and the folders on the way.

    Raises:
        BadInput: Another user may write it, or the model refuses it; the sentence names the line.
    """
    try:
        raw = read_own(path, most=LARGEST, of=of)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from error
    return parse(text_of(raw, path), str(path), model)


def load_gates(path: Path) -> GatePolicy:
    """Return the gates that a file asks of every wave, where only its owner may write it.

    Raises:
        BadInput: Another user may write it, or it is not safe to judge by.
    """
    gates = load_own(path, GatePolicy)
    if problems := lint(gates):
        raise BadInput(f"{path} is not safe to judge by: {problems[0]}")
    return gates


def parse(text: str, path: str, model: type[W]) -> W:
    """Return what this text says that was read at that path; raises as `load` does."""
    return _validated(text, path, model)[0]


def line_at(path: Path, place: Location) -> int:
    """Return the line of these keys in a YAML file; raises as `load` does."""
    document = _Document(str(path), _read(path))
    document.read()
    return document.lines.get(place, 1)


def checked(text: str, path: str, model: type[Value]) -> str:
    """Return what this text says as JSON that the model takes; raises as `load` does."""
    return _validated(text, path, model)[1]


def _validated(text: str, path: str, model: type[W]) -> tuple[W, str]:
    if len(text) > LARGEST:
        raise BadInput(f"{path} is longer than {LARGEST} characters; check that it is the file you mean")
    _refuse_depth(path, text)
    document = _Document(path, text)
    plain, lines = json.dumps(document.read()), document.lines
    try:
        return model.model_validate_json(plain), plain
    except ValidationError as invalid:
        errors = _causes(invalid.errors(), lines)
        first = errors[0]
        more = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
        sentence = _sentence(first, _place(first, lines), _keys_at(model, first["loc"][:-1]))
        raise BadInput(f"{path}, line {_line(first, lines)}: {sentence}{more}") from invalid


def schema(model: type[Value]) -> str:
    """Return the JSON schema of a file's content, for editors, as text that ends in a newline."""
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(),
    }
    return json.dumps(described, indent=2) + "\n"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from error
    return text_of(content, path)


def text_of(content: bytes, path: Path) -> str:
    """Return the text of these bytes of a file.

    Raises:
        BadInput: They are too many, or no UTF-8; the sentence names the line.
    """
    if len(content) > LARGEST:
        raise BadInput(f"{path} is larger than {LARGEST} bytes; check that it is the file you mean")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _refuse_depth(path: str, text: str) -> None:
    """Refuse what nests far deeper than anything that is read here."""
    open_brackets = deepest = 0
    for bracket in _BRACKET.finditer(text):
        open_brackets = max(0, open_brackets + (1 if bracket[0] in "[{" else -1))
        deepest = max(deepest, open_brackets)
    columns = max(len(found[0]) for found in _INDENTED.finditer(text))
    if max(deepest, columns) > DEEPEST:
        raise BadInput(f"{path} is nested too deeply; check that it is the file you mean")


class _Document:
    """Turns what libyaml tells into plain values and notes the line of each.

    It is read piece by piece: a tree of nodes of a fleet of thousands costs eight times as much, most of it
    for Python's collector of garbage.
    """

    def __init__(self, path: str, text: str) -> None:
        self.lines: dict[Location, int] = {}
        self._path = path
        self._loader = PlainLoader(text)

    def read(self) -> dict[str, Any]:
        """Return the mapping that the text is; BadInput for whatever plain YAML does not have."""
        try:
            return self._read()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise BadInput(
                f"{self._path}, line {line}: not valid YAML: {error.problem}; mend this line"
            ) from error
        except yaml.YAMLError as error:
            raise BadInput(f"{self._path} is not valid YAML: {' '.join(str(error).split())}") from error
        finally:
            self._loader.dispose()

    def _read(self) -> dict[str, Any]:
        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise BadInput(f"{self._path} is empty; write keys and values into it")
        root = self._next()
        if not isinstance(root, yaml.MappingStartEvent):
            raise BadInput(f"{self._path}, line 1: not a mapping; the file starts with keys like `name: …`")
        value: dict[str, Any] = self._value(root, ())
        self._next()  # the document ends
        if isinstance(another := self._next(), yaml.DocumentStartEvent):
            raise self._wrong(another, "not valid YAML: another document begins; mend this line")
        return value

    def _next(self) -> yaml.Event:
        found = self._loader.get_event()
        if found is None:
            raise yaml.YAMLError("it ends too early")
        return found

    def _value(self, event: yaml.Event, at: Location) -> Any:
        self.lines.setdefault(at, _line_of(event))
        if len(self.lines) > MOST_VALUES:
            raise self._wrong(event, f"more than {MOST_VALUES} values; check that it is the file you mean")
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event)
            case yaml.MappingStartEvent(tag=None | "!" | "tag:yaml.org,2002:map"):
                return self._mapping(at)
            case yaml.SequenceStartEvent(tag=None | "!" | "tag:yaml.org,2002:seq"):
                return self._sequence(at)
            case yaml.AliasEvent():
                raise self._wrong(event, "an alias (`*name`) is not understood; write the value out")
            case _:
                tag = getattr(event, "tag", None)
                raise self._wrong(event, f"the tag {tag} is not understood; write plain values")

    def _mapping(self, at: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if isinstance(event, yaml.AliasEvent):
                raise self._wrong(event, "an alias (`*name`) is not understood; write the value out")
            if not isinstance(event, yaml.ScalarEvent):
                raise self._wrong(event, "a key is a list or mapping; write a word")
            key, line = str(event.value), _line_of(event)
            if key in first:
                raise self._wrong(event, f"{key} was already given in line {first[key]}; keep one of them")
            if len(first) == MOST_KEYS:
                raise self._wrong(event, f"a mapping of more than {MOST_KEYS} keys; keep those you need")
            first[key] = self.lines[(*at, key)] = line
            found[key] = self._value(self._next(), (*at, key))
        return found

    def _sequence(self, at: Location) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._value(event, (*at, len(found))))
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> str | float | bool | None:
        value = str(event.value)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, value, event.implicit)  # type: ignore[no-untyped-call]
        known = tag.removeprefix("tag:yaml.org,2002:")
        forms = [_FORMS[one] for one in _FORMS if one == known or (known, one) == ("float", "int")]
        if forms and not any(form.match(value) for form in forms):
            raise self._wrong(event, f"{_shown(value)} is not understood; write a plain value")
        match known:
            case "str":
                return value
            case "null":
                return None
            case "bool":
                return value == "true"
            case "int" if len(value) <= len(str(1 << 64)):
                return int(value)
            case "float":
                return float(value)
            case _:
                raise self._wrong(event, f"{_shown(value)} is not understood; write a plain value")

    def _wrong(self, event: yaml.Event, sentence: str) -> BadInput:
        return BadInput(f"{self._path}, line {_line_of(event)}: {sentence}")


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _causes(errors: Sequence[ErrorDetails], lines: dict[Location, int]) -> list[ErrorDetails]:
    """Drop errors that others inside them explain; a mistyped key comes before the one that lacks."""
    outer = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    inner = [error for error in errors if error["loc"] not in outer]
    return sorted(inner, key=lambda error: (error["type"] != "extra_forbidden", _line(error, lines)))


def _place(error: ErrorDetails, lines: dict[Location, int]) -> Location:
    """Return where the error is as the file has it: pydantic adds the kind of a union's member on the way."""
    place: Location = ()
    for part in error["loc"]:
        if (*place, part) in lines:
            place = (*place, part)
    return (*place, error["loc"][-1]) if error["type"] == "missing" else place


def _tag_key(error: ErrorDetails) -> str:
    """Return the key that says which of several kinds a part is."""
    return str(error.get("ctx", {}).get("discriminator")).strip("'")


def _line(error: ErrorDetails, lines: dict[Location, int]) -> int:
    place = _place(error, lines)
    if error["type"] == "union_tag_invalid":
        place = (*place, _tag_key(error))
    return lines.get(place) or lines.get(place[:-1], 1)


def _sentence(  # noqa: PLR0911 - a sentence a case
    error: ErrorDetails, place: Location, known: Sequence[str]
) -> str:
    key, parent = _key(place), _key(place[:-1]) or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{parent} has no key {place[-1]}; {_nearest(str(place[-1]), known)}"
        case "missing":
            return f"{parent} lacks the key {place[-1]}; add it"
        case "union_tag_invalid":
            tag, tags = error["ctx"]["tag"], re.findall("'([^']+)'", error["ctx"]["expected_tags"])
            close = difflib.get_close_matches(tag, tags, n=1)
            instead = f"did you mean {close[0]}?" if close else f"write one of {', '.join(tags)}"
            return f"{key}.{_tag_key(error)} is {_shown(tag)}; {instead}"
        case "value_error":
            where = f"{key}: " if place and isinstance(place[-1], str) else ""
            said = error["msg"].removeprefix("Value error, ")
            return f"{where}{said}" if ";" in said else f"{where}{said}; mend this part"
        case "time_delta_parsing" | "time_delta_type":
            return f"{key} is {_shown(error['input'])}, not a duration; write it like 90s, 30m or 8h"
        case "string_type" if not isinstance(error["input"], dict | list | None):
            return f"{key} is {_shown(error['input'])}, not a string; put it in quotes"
        case _:
            return f"{key or 'the file'} is {_shown(error['input'])}{_wanted(error)}"


def _wanted(error: ErrorDetails) -> str:
    """Return what to write instead, in words where the key has a pattern."""
    if words := PATTERNS.get(str(error.get("ctx", {}).get("pattern")), "").replace("`", ""):
        return f"; write it {words}" if words.startswith("like ") else f"; write {words}"
    return f": {error['msg'][0].lower()}{error['msg'][1:]}; change it"


def _key(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _shown(value: object) -> str:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"  # noqa: PLR2004 - what fits a line


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known keys are {', '.join(known)}" if known else "remove it"


def _keys_at(model: type[Value], location: Location) -> list[str]:
    """Return the keys the model knows where the location leads; empty when that cannot be told."""
    here: list[object] = [model]
    for part in location:
        here = [inner for kind in here for inner in _below(kind, part)]
    words = [word for kind in here for word in _values_in(kind)]
    known = [(name, field) for word in words for name, field in word.model_fields.items()]
    return list(dict.fromkeys(field.alias or name for name, field in known))


def _below(kind: object, part: str | int) -> Iterator[object]:
    """Yield what may stand at one part below a value of this kind."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Value):
        if part in kind.model_fields:
            yield kind.model_fields[str(part)].annotation
    elif origin is dict:
        yield arguments[1]
    elif origin in (tuple, list, frozenset):
        yield arguments[0]
    elif tagged := [word for word in _values_in(kind) if part in _kinds(word)]:
        yield from tagged  # pydantic adds the kind of a union's member on the way
    else:
        for argument in arguments:
            yield from _below(argument, part)


def _kinds(value: type[Value]) -> tuple[object, ...]:
    """Return the tags by which a union tells this value from its siblings."""
    return tuple(tag for field in value.model_fields.values() for tag in get_args(field.annotation))


def _values_in(annotation: object) -> Iterator[type[Value]]:
    if isinstance(annotation, type) and issubclass(annotation, Value):
        yield annotation
    for argument in get_args(annotation):
        yield from _values_in(argument)


class Reread(Generic[W]):
    """What one file says that only its owner may write, read again whenever the file has changed."""

    def __init__(self, path: Path, model: type[W], *, of: int | None = None) -> None:
        """Take the path, the model, and the number of a user who may own the file, too."""
        self.path = path
        self._model = model
        self._of = of
        self._read: tuple[object, W | str] | None = None
        self._turn = threading.Lock()

    def value(self) -> W:
        """Return what the file says now; raises as `load_own` does.

        Its rights, and those of each folder on the way, are checked each time: they change without the file.
        Each version is read once, however many ask for it at the same time, and also when it is wrong:
        a fleet of thousands takes seconds.
        """
        require_own(self.path, of=self._of)
        with self._turn:
            try:
                found = self.path.stat()
            except OSError:
                return load_own(self.path, self._model, of=self._of)  # it says what is wrong
            version = (found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != version:
                self._read = (version, self._load())
            said = self._read[1]
        if isinstance(said, str):
            raise BadInput(said)
        return said

    def _load(self) -> W | str:
        try:
            return load_own(self.path, self._model, of=self._of)
        except BadInput as error:
            return str(error)


MOMENT_SECONDS = 1.0
"""How long a question waits for a file that was changed."""

Described = tuple[dict[str, Fleet], tuple[BadInput, ...]]
"""The fleets by name, and what is wrong with the files of others."""


class FleetFiles:
    """The fleets of one file, or of a folder of files, each read again whenever its file has changed.

    A file that is wrong, or that others may write, takes its own fleet away and no other. The API writes
    them, and a worker of another user reads them: `of` is the number of the API's user there.
    """

    def __init__(self, path: Path, *, of: int | None = None) -> None:
        self._path = path
        self._of = of
        self._files: dict[Path, Reread[Fleet]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._reading: Future[Described] | None = None
        self._lately: Described | None = None
        self._known: tuple[list[Fleet], dict[str, tuple[Fleet, Gateway]]] = ([], {})
        self._described_in: dict[str, list[Path]] = {}
        self._named_in: dict[Path, str] = {}
        self._gone_wrong: frozenset[str] = frozenset()

    def all(self) -> dict[str, Fleet]:
        """Return every fleet by name, as far as its file is as it must be."""
        return self._read()[0]

    def wrong(self) -> tuple[BadInput, ...]:
        """Return what is wrong with the other files."""
        return self._read()[1]

    def names(self) -> frozenset[str]:
        """Return every fleet as it was read last, by name, also where its file has become wrong since.

        Whoever names no fleet must not reach another one because of a typo in a file.
        """
        found, _ = self.lately()
        return self._gone_wrong | found.keys()

    def known(self) -> dict[str, Fleet]:
        """Return every fleet as it was read last, without a look at any file; what never was is read."""
        return self._lately[0] if self._lately is not None else self.all()

    def lately(self) -> Described:
        """Return every fleet, and what is wrong with the other files, as they were read last.

        What has changed since is read beside, and waited for no longer than a moment: nobody who asks about
        one fleet waits until a file of thousands of gateways is read.
        """
        if self._reading is None or self._reading.done():
            self._reading = self._reader.submit(self._read)
        reading, before = self._reading, self._lately
        try:
            return reading.result(None if before is None else MOMENT_SECONDS)
        except TimeoutError:
            return before if before is not None else reading.result()

    def fleet(self, name: str) -> Fleet:
        """Return the fleet as its file describes it now.

        Raises:
            BadInput: No file that is as it must be describes it.
        """
        found, wrong = self._read()
        if name in found:
            return found[name]
        there = f"{self._path} describes {', '.join(found) or 'no fleet'}, not {name}"
        raise BadInput("; ".join([there, *map(str, wrong)]))

    def place_of(self, name: str) -> Path:
        """Return the file that describes the fleet, or in which it would be described.

        Raises:
            BadInput: Two files describe it, or there is no place for a fleet of that name.
        """
        _, wrong = self._read()
        places = self._described_in.get(name, [])
        if len(places) > 1:
            raise BadInput(f"{' and '.join(map(str, places))} both describe the fleet {name}; keep one")
        if places:
            return places[0].resolve()
        if self._path.is_dir():
            place = self._path / f"{name}.yaml"
        elif wrong and self._path.exists():
            raise BadInput(f"{wrong[0]}; which fleet it describes cannot be told before that is mended")
        else:
            place = self._path
        if other := next((fleet for fleet, found in self._described_in.items() if place in found), None):
            raise BadInput(
                f"{place} describes the fleet {other}, so there is no place for {name}; "
                "PENSTOCK_FLEET names a folder with one file for each fleet, or one file"
            )
        return place.resolve()

    def fleets_at(self, targets: Iterable[str]) -> dict[str, Fleet]:
        """Return the fleets of the gateways that Prometheus scrapes there, by name."""
        places = self._places()
        fleets = (places[target][0] for target in targets if target in places)
        return {fleet.name: fleet for fleet in fleets}

    def gateway_at(self, target: str) -> Gateway | None:
        """Return the gateway that Prometheus scrapes there, None for one that nobody has."""
        found = self._places().get(target)
        return found[1] if found is not None else None

    def _places(self) -> dict[str, tuple[Fleet, Gateway]]:
        fleets, (known, places) = list(self.all().values()), self._known
        if [*map(id, fleets)] != [*map(id, known)]:  # an unchanged file is the same object
            places = {one.metrics_target: (fleet, one) for fleet in fleets for one in fleet.gateways}
            self._known = (fleets, places)
        return places

    def _read(self) -> Described:
        found: dict[str, Fleet] = {}
        places: dict[str, list[Path]] = {}
        wrong: list[BadInput] = []
        gone: set[str] = set()
        for file in sorted(self._path.glob("*.yaml")) if self._path.is_dir() else [self._path]:
            try:
                fleet = self._files.setdefault(file, Reread(file, Fleet, of=self._of)).value()
            except BadInput as error:
                wrong.append(error)
                gone.update({self._named_in[file]} if file in self._named_in else ())
                continue
            found[fleet.name] = fleet
            self._named_in[file] = fleet.name
            places.setdefault(fleet.name, []).append(file)
        for name, files in places.items():
            if len(files) > 1:
                del found[name]
                gone.add(name)
                told = " and ".join(map(str, files))
                wrong.append(BadInput(f"{told} both describe the fleet {name}; one of them is meant"))
        self._described_in, self._gone_wrong = places, frozenset(gone)
        self._lately = said = (found, tuple(wrong))
        return said
