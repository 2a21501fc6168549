"""What people and daemons wrote, safe to show."""


def printable(text: str) -> str:
    """Return the text without control characters, which could move a terminal's cursor or worse."""
    return "".join(one if one.isprintable() else "�" for one in text)
