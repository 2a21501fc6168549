"""A person's command, carried out once however often and by whichever road it arrives."""

from collections.abc import Mapping

from temporalio.exceptions import ApplicationError

from policies.model.command import Command, CommandReceipt
from policies.model.drain import DrainEnding, DrainExtension
from policies.model.offer import Offer
from policies.model.value import digest_of

REMEMBERED = 200
"""Commands whose receipts are kept; a repeat comes within minutes."""

LONGEST_KEPT = 1000
"""Characters of a command that is kept as it is; of a longer one its digest is."""

Given = Command | DrainExtension | DrainEnding
"""What a person sends with an id of its own, which makes a repeat the same command."""


class Receipts:
    """What was answered to each command, so that a repeat gets the same answer and no second effect."""

    def __init__(self, known: Mapping[str, tuple[str, CommandReceipt]] | None = None) -> None:
        self._known = dict(known or {})

    def of(self, command: Given) -> CommandReceipt | None:
        """Return what was answered to this command before, None when it is new."""
        known = self._known.get(command.id)
        return known[1] if known else None

    def keep(self, command: Given, receipt: CommandReceipt) -> None:
        """Remember the answer."""
        self._known[command.id] = (_content_of(command), receipt)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def refuse_other_content(self, command: Given) -> None:
        """Raise Conflict when the same id came before with other content."""
        known = self._known.get(command.id)
        if known is not None and not _is_same(known[0], command):
            raise conflict(f"command {command.id} was given before with other words")

    def dump(self) -> dict[str, tuple[str, CommandReceipt]]:
        """Return everything remembered, for a history that is cut."""
        return dict(self._known)


def _content_of(command: Given) -> str:
    """Return what is compared of a command: one that names a thousand gateways is not kept as it is.

    Which other names its person has may be found out between two that are alike.
    """
    content = command.model_dump_json(exclude={"known_as"})
    return content if len(content) <= LONGEST_KEPT else digest_of(content.encode())


def _is_same(content: str, command: Given) -> bool:
    """Whether that is the content of the command, kept by this code or by one that spelled it otherwise."""
    if content == _content_of(command):
        return True
    try:
        return type(command).model_validate_json(content) == command
    except ValueError:  # a digest, or a command of another kind
        return False


def conflict(sentence: str, *offers: Offer) -> ApplicationError:
    """Return the error with which a validator refuses a command and says what makes sense instead."""
    return ApplicationError(sentence, *offers, type="Conflict", non_retryable=True)
