"""Whose step is being carried out: what is logged meanwhile says of which change and gateway it is."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from orchestrator.processes.journal import LABELS
from orchestrator.tracing.spans import attributes_of
from policies.model.operation import Operation

FIELDS = {
    "penstock.change": "VPN_CHANGE",
    "penstock.fleet": "VPN_FLEET",
    "penstock.gateway": "VPN_GATEWAY",
}
"""The journal's fields, by what traces call the same."""

_log = logging.getLogger(__name__)


class Labelled(Interceptor):
    """Labels what each step of a worker logs, and says of each that changed a gateway how long it took."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Stand in front of every step."""
        return _Labelled(next)


class _Labelled(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - its name
        step = activity.info().activity_type
        operation = _operation_in(input.args)
        # Each step is a task with a context of its own, and a failure is logged after it: nothing is reset.
        LABELS.set(_labels(activity.info().workflow_id or "", step, input.args))
        began = time.monotonic()
        done = await self.next.execute_activity(input)
        if operation is not None:
            said = (operation.rollout, step, operation.gateway, time.monotonic() - began)
            _log.info("%s: %s of %s is done, in %.1f s", *said)
        return done


def _operation_in(arguments: Any) -> Operation | None:
    """Return which change orders this step, where it says so: every step that changes a gateway does."""
    found = (getattr(one, "operation", one) for one in arguments)
    return next((one for one in found if isinstance(one, Operation)), None)


def _labels(workflow: str, step: str, arguments: Any) -> Mapping[str, str]:
    """Return what is known of a step: which change it is for, of which fleet and gateway."""
    known = attributes_of(workflow, arguments)
    found = {label: str(known[name]) for name, label in FIELDS.items() if name in known}
    return {"VPN_STEP": step, **found}
