"""What the driver's objects are called in the cluster, and how one fleet's part of it is described."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.model.errors import BadInput

OURS = "penstock.dev"
"""What every label and annotation of ours begins with; admission policies let us change no other."""
FIELD_MANAGER = "penstock"
"""By this name the API server knows which fields are ours."""
FLEET, SLOT = f"{OURS}/fleet", f"{OURS}/slot"
"""Labels of a slot's DaemonSet and of its pods."""
RELEASE, IMAGE, ROLLOUT = f"{OURS}/release", f"{OURS}/image", f"{OURS}/rollout"
"""Annotations of a slot's template: the manifest that its image comes from, the image, and for whom."""
BETWEEN = "_"
"""Between names in the value of a label: no slot's name has it."""
LONGEST = 63
"""Characters of a label's name, and of its value."""


@dataclass(frozen=True)
class Share:
    """One fleet's part of one cluster."""

    fleet: str
    cluster: str
    namespace: str
    slots: Mapping[str, str]
    """Each slot of a gateway with the DaemonSet of its instances."""
    container: str
    """The container of the daemon in each pod."""
    repository: str
    """Where the nodes pull images from, without tag or digest."""
    bears: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node has to have to be one of the fleet's."""

    def __post_init__(self) -> None:
        """Refuse names that no label takes, and those of labels that mean something else; BadInput."""
        for slot in self.slots:
            if self.given(slot) in (self.epoch, self.gateway, self.record):
                raise BadInput(f"no slot can be called {slot}: label {self.given(slot)} means something else")
            if len(f"{self.fleet}.{slot}") > LONGEST:
                raise BadInput(f"{self.fleet}.{slot} is too long for a label's name: {LONGEST} at most")
        if len(self.ordered(self.slots)) > LONGEST:
            raise BadInput(f"the names of the slots of {self.fleet} are too long for one label together")

    @property
    def epoch(self) -> str:
        """The label by which a node knows which change owns it."""
        return f"{OURS}/{self.fleet}.epoch"

    @property
    def gateway(self) -> str:
        """The label by which a node says which gateway it is, where somebody gave it one."""
        return f"{OURS}/{self.fleet}.gateway"

    @property
    def record(self) -> str:
        """The label that says which slots we have ordered, so that what others do to them is seen."""
        return f"{OURS}/{self.fleet}.ordered"

    @property
    def lease(self) -> str:
        """What the lock of the fleet's driver is called."""
        return f"penstock-{self.fleet}"

    def given(self, slot: str) -> str:
        """Return the label that gives a node this slot."""
        return f"{OURS}/{self.fleet}.{slot}"

    def ordered(self, slots: "Mapping[str, str] | frozenset[str]") -> str:
        """Return the value of the record for these slots."""
        return BETWEEN.join(sorted(slots))

    def image(self, digest: str) -> str:
        """Return how the template names an image."""
        return f"{self.repository}@{digest}"
