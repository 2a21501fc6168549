"""Everything that the OpenAPI document allows, and much that it does not, asked of the API."""

import os
from datetime import timedelta
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from orchestrator.api.app import application
from orchestrator.api.limits import Kind, Limits
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.people import EVERY_FLEET, Role

USUAL, ALL = 5, 15
"""Examples of each operation in a usual run, and with --all."""
APP = application(cast(Service, None))
# Ten seconds by default, in which a busy machine has not written the document for the first time.
SCHEMA = schemathesis.openapi.from_asgi("/v1/openapi.json", APP, timeout=120)
OPERATIONS: list[Any] = [cast(Any, found).ok() for found in SCHEMA.get_all_operations()]


class Patient(Limits):
    """Lets everybody ask as often as they like: what is tried here are the answers."""

    def take(self, who: str, kind: Kind) -> None:
        """Take nothing."""


@pytest.fixture
def shown(service: Service, ledger: Ledger) -> dict[str, str]:
    """A token that may do nearly everything, of the service that the application asks."""
    APP.state.service, APP.state.limits = service, Patient()
    grants = {EVERY_FLEET: frozenset({Role.OPERATOR, Role.AUDITOR})}
    secret, _ = ledger.make_token("robot", grants, timedelta(days=1), "root")
    return {"Authorization": f"Bearer {secret}"}


BEYOND_A_SCHEMA = {
    "POST /v1/fleets/{fleet}/windows/freezes",
    "POST /v1/fleets/{fleet}/windows/freezes/import",
}
"""What no schema can say: that one time is later than another, and that a text is a calendar."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=[one.label for one in OPERATIONS])
def test_every_answer_is_one_that_the_document_promises(
    operation: Any, shown: dict[str, str], pytestconfig: pytest.Config
) -> None:
    examples = int(os.environ.get("PENSTOCK_API_EXAMPLES", ALL if pytestconfig.getoption("--all") else USUAL))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.headers.pop("accept", None)  # a stream has no end to wait for
        beyond = operation.label in BEYOND_A_SCHEMA
        case.call_and_validate(headers=shown, excluded_checks=[positive_data_acceptance] if beyond else [])

    ask()
