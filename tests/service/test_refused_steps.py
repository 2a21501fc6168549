"""What an agent's log says of a step that it refuses."""

import logging
from typing import cast

import pytest
from temporalio import activity
from temporalio.worker import Worker

from activities.failures import as_application_errors
from orchestrator.processes.steady_worker import SteadyWorker
from policies.model.errors import Fenced


async def _no_other() -> Worker:
    raise AssertionError("no worker has to be made")


def logged(caplog: pytest.LogCaptureFixture, error: Exception) -> str:
    """Return what the log has of a step that raised this, as the engine's client logs it."""
    SteadyWorker(cast("Worker", None), _no_other)
    with caplog.at_level(logging.WARNING):
        try:
            with as_application_errors():
                raise error  # noqa: TRY301 - what a step does
        except Exception:  # noqa: BLE001 - as the engine's client does
            activity.logger.warning("Completing activity as failed", exc_info=True)
    return caplog.text


def test_a_refusal_is_one_line_of_an_agents_log(caplog: pytest.LogCaptureFixture) -> None:
    """newcomer 14: each refusal and each fenced drain had 40 lines of traceback."""
    text = logged(caplog, Fenced("a newer change owns gw-1", epoch=3))
    assert text.splitlines()[0].endswith("a step ended with Fenced: a newer change owns gw-1")
    assert len(text.splitlines()) == 1


def test_a_fault_of_the_code_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    text = logged(caplog, ZeroDivisionError("a fault"))
    assert "Traceback (most recent call last)" in text
