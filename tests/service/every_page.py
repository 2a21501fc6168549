"""Every page that people look at, by the routes that answer it: none that is new is forgotten."""

from collections.abc import Mapping

from fastapi.routing import APIRoute

from orchestrator.page.site import ROUTES

ELSEWHERE = {
    "login": "strangers see it: test_page_provider",
    "go": "it sends browsers to the identity provider: test_page_provider",
    "come_back": "it sends browsers on: test_page_provider",
    "meet": "it asks whoever has a link: test_page_attacks",
    "live": "it is a stream of what its fleet's page shows: test_page_markup",
    "report": "it is a document of its own, without the page's scripts and style: test_reports",
    "file": "it is a file to keep: test_reports",
}
"""Routes that show no page to whoever is logged in, each with why and where it is tried."""


def every_page(filled: Mapping[str, str]) -> dict[str, str]:
    """Return the address of each page by the name of what answers it.

    Args:
        filled: What stands in addresses for a fleet, a gateway and so on; one that lacks is a KeyError.
    """
    routes = [route for one in ROUTES for route in one.router.routes if isinstance(route, APIRoute)]
    shown = {route.name: route.path for route in routes if "GET" in (route.methods or ())}
    assert ELSEWHERE.keys() <= shown.keys(), f"the page has no {ELSEWHERE.keys() - shown.keys()}"
    return {name: path.format_map(filled) for name, path in shown.items() if name not in ELSEWHERE}
