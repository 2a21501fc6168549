"""The way from an installation's settings to its Prometheus, the same for every process and command."""

from activities.drivers.metrics.access import Access
from activities.drivers.metrics.replicas import Replicas
from orchestrator.settings import Settings


def access_of(settings: Settings) -> Access:
    """Return the addresses of Prometheus, and what is shown to them."""
    return Access(
        urls=tuple(settings.prometheus_url.split(",")),
        token=settings.prometheus_token,
        authority=settings.prometheus_authority,
        certificate=settings.prometheus_certificate,
        key=settings.prometheus_key,
        headers=settings.prometheus_headers,
    )


def prometheus_of(settings: Settings) -> Replicas:
    """Return the client of this installation's Prometheus; no server is asked yet."""
    return Replicas.of(access_of(settings))
