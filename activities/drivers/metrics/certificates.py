"""How long certificates are good: those in files, and those that a daemon shows to its users."""

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


Life = tuple[float, float]
"""From when until when a certificate is good, in seconds of the epoch."""


def life_of(der: bytes) -> Life:
    """Return the life of a certificate in DER.

    Raises:
        ValueError: It is none.
    """
    return _life(x509.load_der_x509_certificate(der))


def life_in(path: Path) -> Life:
    """Return the life of the certificate in a PEM file that ends first.

    Raises:
        OSError: It cannot be read.
        ValueError: There is none in it.
    """
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return min(map(_life, found), key=lambda life: life[1])


def _life(found: x509.Certificate) -> Life:
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


class CertificateLives(Collector):
    """Shows from when until when certificates are good, by their use; of one that cannot be read, nothing."""

    def __init__(self, prefix: str, files: Mapping[str, Path | None]) -> None:
        """Take how both gauges begin, and files by their use; those that are None are not there."""
        self._prefix = prefix
        self._files = {use: path for use, path in files.items() if path is not None}
        self._shown: dict[str, tuple[Life, float]] = {}

    def learn(self, slot: str, der: bytes) -> None:
        """Take in what the daemon of a slot has shown just now; what is no certificate is left out."""
        with suppress(ValueError, UnsupportedAlgorithm):
            self._shown[slot] = (life_of(der), time.monotonic())

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: it depends on what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the lives, read from the files now."""
        begin, end = (
            GaugeMetricFamily(
                f"{self._prefix}_certificate_{name}_seconds",
                f"When a certificate {what}, in seconds of the epoch",
                labels=("use", "slot"),
            )
            for name, what in (("issued", "began to be good"), ("expiry", "ends"))
        )
        for use, slot, life in self._lives():
            begin.add_metric([use, slot], life[0])
            end.add_metric([use, slot], life[1])
        yield begin
        yield end

    def _lives(self) -> Iterator[tuple[str, str, Life]]:
        for use, path in self._files.items():
            with suppress(OSError, ValueError, UnsupportedAlgorithm):
                yield use, "", life_in(path)
        now = time.monotonic()
        for slot, (life, at) in self._shown.copy().items():
            if now - at <= FRESH_SECONDS:
                yield "daemon", slot, life
