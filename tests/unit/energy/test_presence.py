import numpy as np
import pytest

from perllm.energy.presence import NO_TASKS, Presence


def test_task_seconds_add_up_although_the_times_do_not_ascend_and_a_task_still_runs() -> None:
    presence = Presence.build([1.0, 2.0], [3.0, np.inf])
    times_s = np.array([4.0, 0.0, 2.5, 1.5])
    assert presence.accumulate_s(times_s, most=2.0) == pytest.approx([4.0, 0.0, 2.0, 0.5])
    assert presence.accumulate_s(times_s) == pytest.approx([3.0, 0.0, 1.5, 0.5])
    assert NO_TASKS.accumulate_s(times_s) == pytest.approx(np.zeros(4))
