"""Snapshots: the evidence that a failure left behind."""

from datetime import datetime

from policies.model.value import Digest, Name, Value


class SnapshotRow(Value):
    """One failure's evidence on one gateway."""

    rollout: Name
    gateway: Name
    digest: Digest
    at: datetime
