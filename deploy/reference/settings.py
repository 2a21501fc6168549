"""Describe the settings of an installation: each `PENSTOCK_` variable, and what else the environment says."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator

from deploy.reference.markdown import page, sentence, table
from orchestrator.settings import Settings, state_folder
from orchestrator.variables import BESIDE

VAULT = {
    "VAULT_ADDR": "where `vault:` references are read, like `https://vault.example:8200`",
    "VAULT_TOKEN_FILE": "file with the token that is shown there",
}
"""Where secrets are read that a file refers to as `vault:`."""

CHECKED = {
    "_address": "`HOST:PORT`",
    "_place": "a URL",
    "_places": "URLs, with commas between them",
    "_database": "a database's URL",
}
"""What text has to be, by the check that the settings make."""
WORDS = {
    bool: "`true` or `false`",
    int: "whole number",
    Path: "a path",
    dict: "names with values",
    str: "text",
}


def text() -> str:
    """Return the page."""
    settings = [
        (
            f"`PENSTOCK_{name.upper()}`",
            _kind(field),
            _default(field.default),
            sentence(field.description or ""),
        )
        for name, field in Settings.model_fields.items()
    ]
    return page(
        "Settings",
        "Read by `serve`, `worker`, `api` and `relay` when they start: from the environment, else from "
        "`penstock.toml` in the state folder, where `PENSTOCK_LEDGER_URL` is `ledger_url`. A key and a "
        "`PENSTOCK_` variable that nobody knows are refused. `STATE` stands for the state folder. An agent "
        "reads its own file instead: [agent.yaml](agent.md). A commented example: "
        "`deploy/examples/penstock.toml`.",
        table(("Variable", "Value", "Default", "Means"), settings),
        "## Beside the settings",
        table(("Variable", "Means"), [(f"`{name}`", means) for name, means in (BESIDE | VAULT).items()]),
    )


def _kind(field: Any) -> str:
    """Return what may stand there; bounds are those that the settings refuse beyond."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not NoneType)
    checks = {
        one.func.__name__
        for one in (*field.metadata, *_metadata(field.annotation))
        if isinstance(one, AfterValidator)
    }
    if found := [words for check, words in CHECKED.items() if check in checks]:
        return found[0]
    kinds = (get_origin(annotation), *get_args(annotation), annotation)
    said = WORDS[next(kind for kind in kinds if kind in WORDS)]
    low = [f"≥ {bound.ge}" for bound in field.metadata if isinstance(bound, Ge)]
    high = [f"≤ {bound.le}" for bound in field.metadata if isinstance(bound, Le)]
    return ", ".join([said, *low, *high])


def _metadata(annotation: Any) -> list[Any]:
    """Return what is said of a type and of those that it is made of."""
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [one for inner in get_args(annotation) for one in _metadata(inner)]


def _default(value: object) -> str:
    if value is None:
        return "none"
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{written.replace(str(state_folder()), 'STATE')}`"
