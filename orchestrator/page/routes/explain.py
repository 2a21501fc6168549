"""What words mean, and what decided a change."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from orchestrator.api.who import Serving
from orchestrator.page.render import rendered
from orchestrator.page.session import Looking
from orchestrator.words.explained import (
    change_lines,
    decision_named,
    meaning_lines,
    meaning_of,
    verdict_lines,
)
from policies.model.errors import BadInput, Unknown

router = APIRouter()


@router.get("/explain")
async def explain(
    request: Request, caller: Looking, service: Serving, word: Annotated[str, Query(max_length=128)] = ""
) -> Response:
    """Say what a word of penstock's means, or what decided a change."""
    lines: list[str] = []
    wrong = ""
    if word and (meant := meaning_of(word)) is not None:
        lines = meaning_lines(meant)
    elif word:
        named = decision_named(word)
        try:
            if named is not None:
                decision = await service.decision(caller, *named)
                lines = verdict_lines(decision.model_dump(mode="json"))
            else:
                lines = change_lines((await service.change(caller, word)).model_dump(mode="json"))
        except (Unknown, BadInput):
            wrong = f"{word} is no change or decision that you may see, no exit code and no refusal's name"
    return rendered(request, "explain.html", word=word, lines=lines, wrong=wrong)
