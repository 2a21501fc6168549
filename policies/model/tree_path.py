"""Paths of a release's tree: what a path may be, and where one leads through the links on its way."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 240
MOST_LINKS = 40
"""Links that are followed on one way, as many as the kernel follows (path_resolution(7))."""


def _plain_path(path: str) -> str:
    """Return the path if it is relative, normal and printable, so that it means one place only."""
    parts = path.split("/")
    if not path.isascii() or not path.isprintable() or "\\" in path or len(path) > LONGEST:
        raise ValueError(f"path {path!r} has characters that are not allowed, or is too long")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {path!r} is not relative and normal")
    return path


TreePath = Annotated[str, AfterValidator(_plain_path)]
"""A relative path with plain segments, such as `usr/sbin/ocserv`."""


def place_of(path: str, links: Mapping[str, str]) -> str:
    """Return the place in the tree that the path leads to, through every link on its way; `` is the root.

    What is no link counts as a folder, also where nothing is: a link that would lead out as soon as
    somebody made the folder is no better than one that does.

    Raises:
        ValueError: It leads out of the tree, or in a circle.
    """
    rest, found, followed = path.split("/")[::-1], list[str](), 0
    while rest:
        match rest.pop():
            case "" | ".":
                continue
            case ".." if not found:
                raise ValueError(f"{path} leads out of the tree")
            case "..":
                found.pop()
            case part:
                found.append(part)
                target = links.get("/".join(found))
                if target is None:
                    continue
                followed += 1
                if followed > MOST_LINKS:
                    raise ValueError(f"{path} leads through more than {MOST_LINKS} links")
                found.pop()
                rest.extend(reversed(target.split("/")))
    return "/".join(found)
