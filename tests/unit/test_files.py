"""What people read when a file they wrote is wrong: which file, which line, which key, what to do."""

import json
from pathlib import Path

import pytest

from activities.files import LARGEST, load, schema
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.trust import TrustPolicy
from policies.model.value import Value

FLEET = """\
name: edge
product: ocserv
limits:
  steps: [1, 25%, 100%]
  drain_deadline: 30m
gateways:
  - name: gw-1
    addresses: [192.0.2.1]
    slots:
      - {name: a, port: 4431, device: pa, pool4: 10.80.0.0/24}
      - {name: b, port: 4432, device: pb, pool4: 10.81.0.0/24}
"""


class Words(Value):
    """A file in which every kind of value may stand."""

    word: str = ""
    whole: int = 0
    part: float = 0.0
    choice: bool = False
    maybe: int | None = 1


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "fleet.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(folder: Path, content: str | bytes, model: type[Value] = Fleet) -> str:
    """The sentence after the path."""
    path = write(folder, content)
    with pytest.raises(BadInput) as caught:
        load(path, model)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    return sentence.removeprefix(str(path)).lstrip(", ")


def test_a_good_file_becomes_a_fleet(tmp_path: Path) -> None:
    fleet = load(write(tmp_path, FLEET), Fleet)
    assert fleet.gateway("gw-1").slots[1].port == 4432
    assert fleet.limits.steps == ("1", "25%", "100%")
    assert fleet.limits.drain_deadline.total_seconds() == 1800


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("product:", "produkt:", "line 2: the file has no key produkt; did you mean product? (1 more"),
        ("  steps:", "  stebs:", "line 4: limits has no key stebs; did you mean steps?"),
        (
            "    addresses:",
            "    zzz: 1\n    addresses:",
            "line 8: gateways[0] has no key zzz; known keys are name, fleet, group",
        ),
        (
            "port: 4432",
            "porto: 4432",
            "line 11: gateways[0].slots[1] has no key porto; did you mean port? (1 more",
        ),
        ("port: 4432, ", "", "line 11: gateways[0].slots[1] lacks the key port; add it"),
        ("port: 4432", "port: many", 'line 11: gateways[0].slots[1].port is "many": input should be a valid'),
        ("port: 4432", "port: 70000", "line 11: gateways[0].slots[1].port is 70000: input should be less"),
        ("port: 4432", "port: 4431", "line 7: gateway gw-1: two slots have the same port"),
        (
            "25%",
            "20%, 10%",
            "line 4: limits.steps: 1, 20%, 10%, 100% must grow, counts before shares; write ",
        ),
        ("30m", "90", "line 5: limits.drain_deadline: 90 has no unit; write 90s, 90m or 90h"),
        ("30m", "soon", 'line 5: limits.drain_deadline is "soon", not a duration; write it like 90s'),
        ("30m", f"{'9' * 30}d", "line 5: limits.drain_deadline: 99"),
        ("25%", "a few", 'line 4: limits.steps[1] is "a few"; write a count (2) or a share (25%)'),
        (
            "port: 4432",
            "users_at: b:0, port: 4432",
            'line 11: gateways[0].slots[1].users_at is "b:0"; write a name or address, with :PORT',
        ),
        ("name: edge", "name: 7", "line 1: name is 7, not a string; put it in quotes"),
        ("192.0.2.1", "192.0.2.256", "line 8: gateways[0].addresses[0]"),
        ("product: ocserv", "name: again", "line 2: name was already given in line 1; keep one of them"),
        ("device: pb", "name: c", "line 11: name was already given in line 11; keep one of them"),
        ("name: edge", "name: &it edge\nchannel: *it", "line 2: an alias (`*name`) is not understood"),
        ("name: edge", "name: !!python/name:os.system edge", "line 1: "),
        ("[1, 25%, 100%]", "!three [1]", "line 4: the tag !three is not understood; write plain values"),
        ("name: edge", "name: !!int edge", 'line 1: "edge" is not understood; write a plain value'),
        ("name: edge", "name: !!float edge", 'line 1: "edge" is not understood; write a plain value'),
        ("name: edge", "name: !!bool maybe", 'line 1: "maybe" is not understood; write a plain value'),
        ("name: edge", "? [a, b]\n: edge", "line 1: a key is a list or mapping; write a word"),
        ("name: edge", "name: [edge", "line 2: not valid YAML: "),
        ("name: edge", "\tname: edge", "line 1: not valid YAML: "),
        ("product: ocserv", "product: ocserv\n---", "line 3: not valid YAML: "),
    ],
)
def test_a_malformed_fleet_is_refused_by_line_and_key(
    tmp_path: Path, before: str, after: str, sentence: str
) -> None:
    assert before in FLEET
    assert refusal(tmp_path, FLEET.replace(before, after, 1)).startswith(sentence)


def test_a_sentence_says_what_to_do_once(tmp_path: Path) -> None:
    grown = refusal(tmp_path, FLEET.replace("25%", "20%, 10%", 1))
    assert grown.endswith("write them like 1, 25%, 100%")
    assert refusal(tmp_path, FLEET.replace("port: 4432", "port: 4431")).endswith("same port; mend this part")


GATES = """\
gates:
  - id: logins
    kind: rate
    bad: a{$cohort}
    total: b{$cohort}
"""


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("total:", "totl:", "line 5: gates[0] has no key totl; did you mean total? (1 more"),
        ("kind: rate", "kind: rat", 'line 3: gates[0].kind is "rat"; did you mean rate?'),
        ("kind: rate", "kind: x", 'line 3: gates[0].kind is "x"; write one of rate, exceedance, '),
        ("b{$cohort}", "nothing", "line 5: gates[0].total: must name raw series"),
        (
            "a{$cohort}",
            "a{$cohort}\n    margin: {dleta: 1}",
            "line 5: gates[0].margin has no key dleta; did you mean delta?",
        ),
        ("a{$cohort}", "a{$cohort}\n    required: true", "line 2: gate logins: required, but says no health"),
    ],
)
def test_a_malformed_gate_is_named_by_its_place_whatever_its_kind(
    tmp_path: Path, before: str, after: str, sentence: str
) -> None:
    assert before in GATES
    assert refusal(tmp_path, GATES.replace(before, after, 1), GatePolicy).startswith(sentence)


TRUST = """\
version: 1
openpgp:
  ana: {cert: ana.asc, fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567}
rules:
  - product: ocserv
    channel: stable
    groups: {publishers: [{openpgp: ana}]}
    require: [{group: publishers}]
    index: none
"""


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("openpgp:\n", "zzz:\n", "line 2: the file has no key zzz; known keys are version, trust_roots, "),
        ("cert:", "zzz:", "line 3: openpgp.ana has no key zzz; known keys are cert, fingerprint"),
        ("{openpgp:", "{opengpg:", "line 7: rules[0].groups.publishers[0] has no key opengpg; did you mean "),
        ("{openpgp:", "{zzz:", "line 7: rules[0].groups.publishers[0] has no key zzz; known keys are sigst"),
        ("index:", "zzz:", "line 9: rules[0] has no key zzz; known keys are product, channel, groups, "),
        ("{group:", "{zzz:", "line 8: rules[0].require[0] has no key zzz; known keys are group, count"),
    ],
)
def test_a_malformed_trust_policy_is_told_with_the_keys_there_are(
    tmp_path: Path, before: str, after: str, sentence: str
) -> None:
    assert before in TRUST
    assert refusal(tmp_path, TRUST.replace(before, after, 1), TrustPolicy).startswith(sentence)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "- a\n- b\n").startswith("line 1: not a mapping")
    assert refusal(tmp_path, "").startswith("is empty")
    assert refusal(tmp_path, "# only words\n").startswith("is empty")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file or directory; check the path"):
        load(tmp_path / "absent.yaml", Fleet)
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        load(tmp_path, Fleet)


def test_bytes_that_are_no_text_are_refused_by_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"name: edge\nproduct: \xff\n").startswith("line 2: not UTF-8 text")
    assert "not valid YAML" in refusal(tmp_path, b"name: \x00\n")


def test_a_file_too_large_or_too_deep_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"#" * (LARGEST + 1)).startswith(f"is larger than {LARGEST} bytes")
    assert refusal(tmp_path, "[" * 5000).startswith("is nested too deeply")


def test_aliases_cannot_multiply(tmp_path: Path) -> None:
    laughs = "word: x\na0: &a0 [x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "an alias" in refusal(tmp_path, laughs, Words)


@pytest.mark.parametrize("word", ["no", "on", "Yes", "1:30", "2026-03-02", "0x1F", "1_000", "<<"])
def test_words_that_older_yaml_bends_stay_words(tmp_path: Path, word: str) -> None:
    assert load(write(tmp_path, f"word: {word}\n"), Words).word == word


def test_plain_values_are_read_as_what_they_are(tmp_path: Path) -> None:
    text = "word: 'true'\nwhole: -12\npart: 1e3\nchoice: true\nmaybe: ~\n"
    assert load(write(tmp_path, text), Words) == Words(
        word="true", whole=-12, part=1000.0, choice=True, maybe=None
    )


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("1.5h", 5400), ("7d", 604800), ("PT8H", 28800)]
)
def test_durations_are_written_as_people_say_them(tmp_path: Path, written: str, seconds: float) -> None:
    fleet = load(write(tmp_path, FLEET.replace("drain_deadline: 30m", f"kept: {written}")), Fleet)
    assert fleet.limits.kept.total_seconds() == seconds


def test_a_number_of_a_million_digits_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, f"whole: {'9' * 5000}\n", Words).startswith('line 1: "999')


def test_the_schema_is_json_and_names_every_key() -> None:
    described = json.loads(schema(Fleet))
    assert described["$schema"].startswith("https://json-schema.org/")
    fields = Fleet.model_fields.items()
    assert set(described["properties"]) == {field.alias or name for name, field in fields}
    assert described["additionalProperties"] is False
