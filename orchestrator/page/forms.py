"""Forms: what people may write in them, and what becomes of one that is refused, the same everywhere.

What was typed stays, under the key by which a repeat is known; the page says why in one sentence, and is
answered with the status that the API answers with.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError

from orchestrator.api.texts import KEY, LONGEST_KEY, LONGEST_REASON, LONGEST_RELEASE, TEXT
from orchestrator.page.render import problem_of, rendered
from policies.model.errors import BadInput, PenstockError
from policies.model.people import PersonName

LONGEST_TYPED = 20_000
"""Characters that a page takes and shows again, where fewer may be kept."""

_PERSON = TypeAdapter[str](PersonName)

Typed = Annotated[str, Form(max_length=LONGEST_TYPED)]
"""What an operator has typed; a page that refuses it shows it again, so that nothing is lost."""
Release = Annotated[str, Form(min_length=1, max_length=LONGEST_RELEASE)]
Key = Annotated[str, Form(min_length=1, max_length=LONGEST_KEY, pattern=KEY)]


def reason_in(typed: str) -> str:
    """Return the reason that was typed.

    Raises:
        BadInput: It is blank or too long.
    """
    return text_in(typed, "the reason", LONGEST_REASON)


def text_in(typed: str, what: str, longest: int) -> str:
    """Return what was typed into a field.

    Raises:
        BadInput: It is blank or too long.
    """
    if not re.search(TEXT, typed):
        raise BadInput(f"{what} is blank; write a text that can be read")
    if len(typed) > longest:
        raise BadInput(f"{what} has {len(typed)} characters; write {longest} at most")
    return typed


def owner_in(typed: str) -> str:
    """Return the operator whose name was typed.

    Raises:
        BadInput: It is no name.
    """
    try:
        return _PERSON.validate_python(typed.strip())
    except ValidationError as error:
        raise BadInput(f"{typed!r} is no name of an operator; write it as people.yaml does") from error


def day_in(typed: str) -> date:
    """Return the day that was typed.

    Raises:
        BadInput: It is none.
    """
    try:
        return date.fromisoformat(typed)
    except ValueError as error:
        raise BadInput(f"{typed!r} is no day; write it as YYYY-MM-DD") from error


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
