"""How long a task waits after a node refused its pod.

After its first refusal it goes to another node at once; after further ones, or where there is no other, it waits first,
longer each time. Where there is no other, it also waits as long as the node asked for, within the limit of all pauses.
"""

from collections import OrderedDict
from dataclasses import dataclass
from random import Random

from perllm.backoff import Backoff
from perllm.placement.bounded import remember

HOLD = Backoff(first_s=1.0, limit_s=60.0)


@dataclass(slots=True)
class _Hold:
    refusals: int = 0
    until_s: float = 0.0
    asked_until_s: float = 0.0


class Holds:
    """The refused tasks and their pauses.

    Args:
        rng: for the jitter of pauses.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._holds: OrderedDict[str, _Hold] = OrderedDict()

    def add(self, task_id: str, now_s: float, retry_after_s: float = 0.0) -> None:
        """Hold a task whose pod was refused by a node that asked to wait so long."""
        hold = remember(self._holds, task_id, _Hold)
        hold.refusals += 1
        hold.until_s = now_s + HOLD.pause_s(hold.refusals, self._rng)
        hold.asked_until_s = now_s + min(retry_after_s, HOLD.limit_s)

    def forget(self, task_id: str) -> None:
        """Forget a task."""
        self._holds.pop(task_id, None)

    def is_held(self, task_id: str, now_s: float, *, can_go_elsewhere: bool) -> bool:
        """Whether a task has to wait before it is tried again."""
        hold = self._holds.get(task_id)
        if hold is None:
            return False
        if can_go_elsewhere:
            return hold.refusals > 1 and now_s < hold.until_s
        return now_s < max(hold.until_s, hold.asked_until_s)
