"""Whole windows are judged as they were when they were written down, gate by gate."""

import json
from typing import Any

import pytest

from tests.sampled import sampled
from tests.unit.judged_windows import MEMORY, STORIES, Story, judged

REMEMBERED: dict[str, Any] = json.loads(MEMORY.read_text())


@pytest.mark.parametrize("story", sampled(STORIES, *STORIES[::4]), ids=lambda story: story.name)
def test_a_window_is_judged_as_it_was_when_it_was_written_down(story: Story) -> None:
    assert json.loads(json.dumps(judged(story))) == REMEMBERED[story.name]
