"""Who else reads what a process of penstock writes: nobody, or the group to which its unit gives that."""

import os

_NOBODY, _GROUP = 0o077, 0o027


def keep_to_itself() -> None:
    """Have whatever this process writes from now on read by nobody else: logs and ledgers name users.

    Where the process was started with a mask that lets its group read and nobody else, that stays: the
    worker's unit has one, since the API's group reads evidence.
    """
    given = os.umask(_NOBODY)
    if given & _GROUP == _GROUP:
        os.umask(given)
