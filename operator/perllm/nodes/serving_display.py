"""Shows in the profiles of nodes what their model servers serve, and how busy they are.

What is served is written at once. Load changes all the time, so it is written at most once a minute for each node, and
only if it has changed.
"""

from collections.abc import Callable

from perllm.api.node_profile import ServingStatus

LOAD_S = 60.0


class ServingDisplay:
    """Decides when the profile of a node is written.

    Args:
        write: writes what the profile of a node shows, nothing if that is None.
        is_member: whether a node is in the fleet; others may have no profile yet.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        write: Callable[[str, ServingStatus | None], None],
        *,
        is_member: Callable[[str], bool],
        now_s: Callable[[], float],
    ) -> None:
        self._write = write
        self._is_member = is_member
        self._now_s = now_s
        self._written: dict[str, tuple[ServingStatus, float]] = {}

    def show(self, node: str, serving: ServingStatus | None) -> None:
        """Show what a node serves, None if it has no agent; to be called repeatedly, since it may not be due."""
        shown, written_s = self._written.get(node, (None, 0.0))
        if serving == shown or (serving is not None and not self._is_member(node)):
            return
        is_load = serving is not None and shown is not None and _without_load(serving) == _without_load(shown)
        if is_load and self._now_s() < written_s + LOAD_S:
            return
        if serving is None:
            del self._written[node]
        else:
            self._written[node] = serving, self._now_s()
        self._write(node, serving)

    def forget(self, node: str) -> None:
        """Show again what a node serves: its profile was deleted."""
        self._written.pop(node, None)


def _without_load(serving: ServingStatus) -> ServingStatus:
    return serving.model_copy(update={"busy": "", "foreign": 0})
