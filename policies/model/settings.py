"""Settings: what a fleet's file says of its daemons' configuration in place of their release."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from policies.model.value import Message

MOST_SETTINGS = 64
"""Keys that a gateway may be given."""

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=63)]
"""A key of the daemon's configuration, as the daemon spells it."""

Said = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One value of a key."""


class Setting(Message):
    """A key of the daemon's configuration and all its values in order; without any it is left out."""

    key: Key
    values: tuple[Said, ...] = Field(default=(), max_length=200)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each value, as people read it."""
        return tuple(f"{self.key} = {value}" for value in self.values) or (f"{self.key} left out",)


def _listed(written: Any) -> Any:
    """Read one value where a list of one is meant; switches and numbers as the daemon spells them."""
    if not isinstance(written, Mapping):
        return written
    return {
        key: tuple(map(_spelled, one if isinstance(one, list | tuple) else (one,)))
        for key, one in written.items()
    }


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


Settings = Annotated[
    dict[Key, tuple[Said, ...]],
    BeforeValidator(_listed),
    Field(max_length=MOST_SETTINGS),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "integer"},
                    {"type": "boolean"},
                    {"type": "array", "items": {"type": "string"}},
                ]
            },
        }
    ),
]
"""Values by key; one that is alone needs no list."""


def lines_of(settings: Iterable[Setting]) -> tuple[str, ...]:
    """Return all lines of these settings."""
    return tuple(line for setting in settings for line in setting.lines)
