"""Forms: what people may write in them, and what becomes of one that is refused, the same everywhere.

What was typed stays, under the key by which a repeat is known; the page says why in one sentence, and is
answered with the status that the API answers with.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import Response

from orchestrator.api.texts import KEY, LONGEST_CAUSE, LONGEST_KEY, LONGEST_REASON, LONGEST_RELEASE, TEXT
from orchestrator.page.render import problem_of, rendered
from policies.model.errors import PenstockError

Reason = Annotated[str, Form(min_length=1, max_length=LONGEST_REASON, pattern=TEXT)]
Cause = Annotated[str, Form(min_length=1, max_length=LONGEST_CAUSE, pattern=TEXT)]
Release = Annotated[str, Form(min_length=1, max_length=LONGEST_RELEASE)]
Key = Annotated[str, Form(min_length=1, max_length=LONGEST_KEY, pattern=KEY)]


def new_key() -> str:
    """Return a key for a form that is sent once."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Sent:
    """A form as it is shown: fresh, or as somebody has sent it and was refused."""

    key: str = field(default_factory=new_key)
    written: Mapping[str, Any] = field(default_factory=dict)
    """What was typed, by the names of its fields."""
    refused: PenstockError | None = None


def with_form(request: Request, template: str, sent: Sent, **known: Any) -> Response:
    """Return a page with this form in it."""
    code, headers = (200, None) if sent.refused is None else problem_of(sent.refused)
    return rendered(request, template, code=code, headers=headers, sent=sent, **known)
