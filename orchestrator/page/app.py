"""The whole application: the API under /v1, and the page for everything else."""

from fastapi import FastAPI

from orchestrator.api.app import application
from orchestrator.api.limits import Limits
from orchestrator.api.watch import Watch
from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.page.site import site
from orchestrator.service.service import Service


def whole(
    service: Service,
    limits: Limits | None = None,
    watch: Watch | None = None,
    runbooks: Runbooks = named_only,
) -> FastAPI:
    """Return API and page of this service; both share what everybody may ask how often.

    `runbooks` says where a runbook opens that the page names.
    """
    app = application(service, limits, watch)
    shared, streams, answers = app.state.limits, app.state.streams, app.state.answers
    app.mount("/", site(service, shared, streams, watch, runbooks, answers))
    return app
