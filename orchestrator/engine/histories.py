"""Values that orchestrator processes other than workers read out of a workflow's history.

A payload opens only in the workflow that it was sealed for. So every value is read here, in the place of
its workflow; a codec without one refuses each sealed payload.
"""

from typing import TypeVar

from temporalio.api.common.v1 import Payloads
from temporalio.client import WorkflowExecution

from policies.model.errors import BadInput

T = TypeVar("T")


async def value_given(to: WorkflowExecution, payloads: Payloads, kind: type[T]) -> T:
    """Return the one value that the workflow was given in these payloads of its history.

    Raises:
        BadInput: It cannot be opened here, or it is no value of that kind.
    """
    try:
        (value,) = await to.data_converter.decode(payloads.payloads, [kind])
    except (ValueError, KeyError) as error:
        raise BadInput(f"a payload holds no {kind.__name__} of this version of penstock") from error
    given: T = value
    return given
