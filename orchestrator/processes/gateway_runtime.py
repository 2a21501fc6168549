"""What acts on a gateway, by what an instance is there: the one place of its processes that asks."""

from collections.abc import Callable, Mapping

from activities.drivers.daemon.port import Secret
from activities.drivers.runtime.host.adoption import HostAdoption
from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.own_unit import OwnUnit
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.slots import HostSlots
from activities.drivers.runtime.host.units import Units
from activities.drivers.runtime.host.versions import Admission
from activities.drivers.runtime.podman.container_folders import ContainerFolders
from activities.drivers.runtime.podman.slots import ContainerSlots
from activities.drivers.runtime.pods.adoption import NoAdoption
from activities.drivers.runtime.pods.pod_folders import PodFolders
from activities.drivers.runtime.pods.slots import PodSlots
from activities.drivers.steering.port import SteeringDriver


def slots_of(
    folders: SlotFolders,
    journal: Journal,
    table: SteeringDriver,
    admission: Admission,
    credentials: Mapping[str, Secret],
    audit: HostAudit,
    unrenewed: Callable[[], str],
) -> tuple[HostSlots, HostAdoption | NoAdoption]:
    """Return what starts, stops and restores instances there, and what takes over a daemon that serves."""
    if isinstance(folders, PodFolders):
        none = NoAdoption(folders.gateway)
        return (
            PodSlots(folders, journal, table, admission, credentials, none, audit.length, unrenewed),
            none,
        )
    adoption = HostAdoption(folders, journal, table, OwnUnit(Units(), audit.note), audit.record_refusal)
    slots = ContainerSlots if isinstance(folders, ContainerFolders) else HostSlots
    return (
        slots(folders, journal, table, admission, credentials, adoption, audit.length, unrenewed),
        adoption,
    )
