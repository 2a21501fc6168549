"""Release tests of the instance in a slot: what it is made of, and what it does, alone and under load."""

import asyncio

from activities.drivers.metrics.login_times import recorded_logins
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.load import compared
from activities.drivers.runtime.host.mirror import mirrored
from activities.drivers.runtime.host.process import Alive
from activities.drivers.runtime.host.slot_folders import SlotFolder, SlotFolders
from activities.steering_table import SteeringTable
from policies.mirror import unknown
from policies.model.adoption import ADOPTED
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.errors import Refused, Unavailable
from policies.model.mirror import Mirror
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.release_tests import Asked, Load, Measurement, Names


class SlotTests:
    """What is asked of an instance that has no user yet."""

    def __init__(self, folders: SlotFolders, journal: Journal, table: SteeringTable) -> None:
        """Take the slots, who may order, and where new sessions go."""
        self._folders = folders
        self._journal = journal
        self._table = table
        self._mirroring = asyncio.Lock()

    async def inspect(
        self, operation: Operation, slot: str, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the release tests of an instance: what it is made of, and what it does.

        Raises:
            Refused: when nothing of ours runs there.
        """
        self._journal.check(operation)
        folder = self._folders.of(slot)
        running, release = folder.process(), folder.release
        known = slot != ADOPTED and self._folders.is_proven(slot)
        if running is None or release is None or not known:
            gateway = self._folders.gateway.name
            raise Refused(f"nothing that could be tested runs in slot {slot} of {gateway}")
        made = [await self._files_of(folder, running, release), await self._config_of(folder)]
        return (*made, *await self._folders.daemon.inspect(folder.chroot, names, profiles))

    async def mirror(self, operation: Operation, slot: str, mirror: Mirror) -> tuple[Measurement, ...]:
        """Play the last hour's logins to the instance and to the one that serves here, one mirror at a time.

        Raises:
            BeyondHostLimits: when the instance gets new sessions, or this host makes no such logins.
        """
        async with self._mirroring:
            self._journal.check(operation)
            steering = await self._table.read()
            exposed = slot in (steering.serving, steering.trial)
            most = self._journal.bounds.shadow_logins(slot, mirror.at_most, gets_new_sessions=exposed)
            if steering.serving in (None, ADOPTED):
                return unknown(
                    "no older release of ours serves on this host, so there is nothing to compare: leave "
                    "tests.mirror out of this upgrade"
                )
            bounded = mirror.model_copy(update={"at_most": most, "at_least": min(most, mirror.at_least)})
            recorded = await asyncio.to_thread(recorded_logins, self._folders.root)

            def admit() -> bool:
                self._journal.check(operation)
                return self._journal.bounds.take_shadow_login()

            new, old = self._folders.of(slot), self._folders.of(str(steering.serving))
            return await mirrored(self._folders.daemon, new, old, bounded, recorded, admit)

    async def load(self, operation: Operation, slot: str, load: Load) -> tuple[Measurement, ...]:
        """Load the instance and the one that serves here, in turn.

        Raises:
            BeyondHostLimits: when the instance gets new sessions, or this host was loaded too often.
        """
        self._journal.check(operation)
        steering = await self._table.read()
        exposed = slot in (steering.serving, steering.trial)
        self._journal.bounds.count_load(slot, gets_new_sessions=exposed)
        compares = steering.serving not in (None, ADOPTED)
        old = self._folders.of(str(steering.serving)) if compares else None
        return await compared(self._folders.daemon, self._folders.of(slot), old, load)

    async def _files_of(self, folder: SlotFolder, running: Alive, release: ReleaseRef) -> Measurement:
        stranger = await asyncio.to_thread(self._folders.unsigned_file, folder, running, release)
        said = f"{stranger} runs and was not signed" if stranger else self._folders.signed_words
        return Measurement(test=Asked.FILES, measured=int(stranger is not None), said=said)

    async def _config_of(self, folder: SlotFolder) -> Measurement:
        try:
            await self._folders.daemon.check(folder.chroot)
        except Refused as refused:
            return Measurement(test=Asked.CONFIG, measured=1, said=str(refused))
        except Unavailable as error:
            return Measurement(test=Asked.CONFIG, said=str(error))
        return Measurement(test=Asked.CONFIG, measured=0, said="the daemon's own test takes its config")
