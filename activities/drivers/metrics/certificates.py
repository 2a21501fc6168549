"""When certificates end: those in files, and those that a daemon shows to its users."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FRESH_SECONDS = 60.0
"""What a daemon showed is told for so long: unknown is never the last thing known."""


def end_of(der: bytes) -> float:
    """Return when a certificate in DER ends, in seconds of the epoch.

    Raises:
        ValueError: It is none.
    """
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


def end_of_file(path: Path) -> float:
    """Return when the first to end of the certificates in a PEM file ends, in seconds of the epoch.

    Raises:
        OSError: It cannot be read.
        ValueError: There is none in it.
    """
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return min(one.not_valid_after_utc.timestamp() for one in found)


class CertificateEnds(Collector):
    """Shows when certificates end, by what they are used for; of one that cannot be read, nothing."""

    def __init__(self, name: str, files: Mapping[str, Path | None]) -> None:
        """Take the name of the gauge and the files by their use; files that are None are not there."""
        self._name = name
        self._files = {use: path for use, path in files.items() if path is not None}
        self._shown: dict[str, tuple[float, float]] = {}

    def learn(self, slot: str, der: bytes) -> None:
        """Take in what the daemon of a slot has shown just now; what is no certificate is left out."""
        with suppress(ValueError, UnsupportedAlgorithm):
            self._shown[slot] = (end_of(der), time.monotonic())

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: it depends on what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the ends, read from the files now."""
        family = GaugeMetricFamily(
            self._name, "When a certificate ends, in seconds of the epoch", labels=("use", "slot")
        )
        for use, path in self._files.items():
            with suppress(OSError, ValueError, UnsupportedAlgorithm):
                family.add_metric([use, ""], end_of_file(path))
        now = time.monotonic()
        for slot, (end, at) in self._shown.copy().items():
            if now - at <= FRESH_SECONDS:
                family.add_metric(["daemon", slot], end)
        yield family
