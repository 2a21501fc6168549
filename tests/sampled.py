"""Many cases of one promise, of which a usual run takes a few."""

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], *usual: Any) -> list[Any]:
    """Return the cases for `parametrize`: those that are named here are usual, all others are in the sweep.

    A case of several values is a tuple, which is named by its first one.
    """
    parameters = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = () if values[0] in usual else pytest.mark.sweep
        parameters.append(pytest.param(*values, marks=marks))
    return parameters
