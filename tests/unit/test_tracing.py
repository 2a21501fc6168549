"""Tracing where it is off, or cannot be had."""

import subprocess
import sys

import pytest

from orchestrator.tracing.chosen import EXPORTING, tracing_at
from orchestrator.tracing.spans import HEADER, Place, place_in, trace_of
from policies.model.errors import BadInput


def test_without_its_packages_a_set_address_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [
        name for name in sys.modules if name.startswith("opentelemetry.")
    ]:  # found without the first
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, EXPORTING, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(BadInput, match=r"pip install 'penstock\[tracing\]'"):
        tracing_at("http://127.0.0.1:1", "a process that never was")


def test_where_it_is_off_nothing_of_opentelemetry_is_loaded() -> None:
    program = (
        "import sys\n"
        "import orchestrator.processes.agent, orchestrator.processes.api, orchestrator.processes.worker\n"
        "ours = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_place_travels_as_it_is_and_nonsense_is_none() -> None:
    place = Place(trace_of("run"), 7)
    assert place_in({HEADER: place.header()}) == place
    for wrong in (b"", b"[]", b"{}", b'{"traceparent": 7}', b'{"traceparent": "00-x"}', b"\xff"):
        header = place.header()
        header.data = wrong
        assert place_in({HEADER: header}) is None
