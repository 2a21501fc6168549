"""chat.yaml: which chat the process listens to, and where its secrets are."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, model_validator

from activities.drivers.private_files import secret_line
from activities.files import load
from policies.model.chat import Room, Workspace
from policies.model.value import Value

LEAST_TOKEN = 16
"""Characters of what is shown to a chat or to penstock's API; the shortest of them has more."""

LEAST_KEY = 32
"""Characters of what requests are signed with."""


class MatrixFile(Value):
    """A Matrix homeserver, where penstock has an account of its own."""

    homeserver: Annotated[
        str, Field(pattern=r"^(?:https://|http://127\.0\.0\.1[:/])[^\s?#]+$", max_length=255)
    ]
    """Where its client API answers; without TLS only on this host itself."""
    workspace: Workspace
    """The homeserver's name, which stands in accounts after the colon."""
    user: Annotated[str, Field(pattern=r"^@[^:\s]+:[^\s]+$", max_length=255)]
    """The account of penstock."""
    token: Path
    """File with the account's access token."""
    rooms: Annotated[tuple[Room, ...], Field(max_length=200)] = ()
    """Rooms that it joins at its start; none of them encrypted."""
    other_homeservers: bool = False
    """Whether accounts of other homeservers may be linked; there somebody else says who is who."""


class SlackFile(Value):
    """A Slack workspace, where penstock is an app."""

    workspace: Workspace
    """The workspace's id, `T...`."""
    bot_token: Path
    """File with the bot's token, `xoxb-...`."""
    app_token: Path | None = None
    """File with the app's token, `xapp-...`: Socket Mode, for which no port is opened."""
    signing_secret: Path | None = None
    """File with the signing secret: Slack asks here by HTTP, at `listen`."""
    listen: Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")] = "127.0.0.1:8790"
    """Where signed requests come in, behind a proxy with TLS; only with `signing_secret`."""
    api: Annotated[str, Field(pattern=r"^(?:https://|http://127\.0\.0\.1[:/])[^\s?#]+$")] = (
        "https://slack.com/api/"
    )
    """Where Slack's API answers."""

    @model_validator(mode="after")
    def _one_way(self) -> "SlackFile":
        if (self.app_token is None) == (self.signing_secret is None):
            raise ValueError("give app_token for Socket Mode or signing_secret for HTTP, one of the two")
        return self


T = TypeVar("T", bound=Value)
AnyChat = MatrixFile | SlackFile
"""One of each kind: a key of `ChatFile` each, an adapter each, which `chat_of` makes."""


class ChatFile(Value):
    """Which chat the process listens to, whom it asks, and what it keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(alias="apiVersion")
    """The form of this file."""
    socket: Path | None = None
    """The local socket of the API; without it `url` is asked."""
    url: Annotated[str, Field(pattern=r"^(?:https://|http://(?:127\.0\.0\.1[:/]|penstock$))[^\s?#]*$")] = (
        "http://penstock"
    )
    """Where the API answers; without TLS only on this host itself."""
    token: Path
    """File with a token of the role `chat`, from `penstock token create`."""
    state: Path
    """Folder where the process keeps up to where it has listened."""
    matrix: MatrixFile | None = None
    """A Matrix homeserver."""
    slack: SlackFile | None = None
    """A Slack workspace."""
    notices: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=63)] | None = None
    """The sink of notices.yaml whose notices are told in the threads; none without it."""

    @model_validator(mode="after")
    def _one_chat(self) -> "ChatFile":
        if len(self._chats()) != 1:
            raise ValueError(f"give {_kinds()}, one of them; another chat is another process")
        if self.socket is None and self.url == "http://penstock":
            raise ValueError("give socket, or url: where penstock's API answers")
        return self

    @property
    def chat(self) -> AnyChat:
        """The one chat that it names."""
        (found,) = self._chats()
        return found

    def _chats(self) -> list[AnyChat]:
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value for value in values if isinstance(value, AnyChat)]


def _kinds() -> str:
    """Return the keys of kinds of chats, as a sentence names them."""
    fields = ChatFile.model_fields.items()
    return " or ".join(name for name, field in fields if {*get_args(field.annotation)} & {*get_args(AnyChat)})


def read(path: Path) -> ChatFile:
    """Return what the file says; paths in it begin beside it.

    Raises:
        BadInput: It is not there or is wrong; the sentence names the line or the key.
    """
    return _beside(load(path, ChatFile), path.parent)


def secret(path: Path) -> str:
    """Return the token that a private file holds.

    Raises:
        BadInput: It cannot be read, is too short for one, or others may read it.
    """
    return secret_line(path, "the token", LEAST_TOKEN)


def signing_secret(path: Path) -> str:
    """Return the secret with which a chat signs; raises as `secret` does."""
    return secret_line(path, "the signing secret", LEAST_KEY)


def _beside(found: T, folder: Path) -> T:
    """Return the settings with every path made whole, also in their parts."""
    update: dict[str, object] = {}
    for name in type(found).model_fields:
        value = getattr(found, name)
        if isinstance(value, Path):
            update[name] = folder / value
        elif isinstance(value, Value):
            update[name] = _beside(value, folder)
    return found.model_copy(update=update)
