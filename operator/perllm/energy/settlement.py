"""Settlement: the energy of a finished task, as soon as the samples cover its run.

The energy of a node is shared by the tasks on it, so the inference windows of all of them are kept for as long as the
energy history reaches back. The window of a running task is open; its inference is assumed to have begun when its
container started.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from perllm.api.report import RunReport
from perllm.api.task_status import EnergyQuality
from perllm.cluster.pod import Pod, Timing
from perllm.energy.attribution import MISSING, Attribution, IdlePower, Window, attribute, count_present
from perllm.energy.bill import Owner
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.node_spans import NodeSpans
from perllm.energy.presence import Presence
from perllm.energy.reading_power import observe_reading_power
from perllm.energy.spans import FOREVER_S, MIN_SPAN_S, Span, Usage, observe_usage, weigh

SETTLING_S = 2.0
"""How long after a run the API server may still report pods that ran at the same time and share its energy."""

OBSERVATION_S = 10.0
"""How often the idle power and the usage of a node are estimated."""


class Settlement:
    """Measures the energy of finished tasks.

    Args:
        history: energy of the nodes.
        idle_power: idle power of the nodes.
        foreign: foreign requests on the nodes, which share the energy.
        count_gpus: returns how many GPUs a node has, by its name.
        patience_s: how long to wait for samples after the end of a run.
        retry_s: how often to check for them.
        window_s: how far back the energy history reaches.
        now: monotonic clock, in seconds.
    """

    def __init__(
        self,
        history: EnergyHistory,
        idle_power: IdlePower,
        foreign: ForeignLoad,
        *,
        count_gpus: Callable[[str], float],
        patience_s: float,
        retry_s: float,
        window_s: float,
        now: Callable[[], float],
    ) -> None:
        self.retry_s = retry_s
        self._history = history
        self._idle_power = idle_power
        self._foreign = foreign
        self._count_gpus = count_gpus
        self._patience_s = patience_s
        self._window_s = window_s
        self._now = now
        self._spans: defaultdict[str, NodeSpans] = defaultdict(NodeSpans)
        self._nodes: dict[str, str] = {}
        self._usages: dict[str, Usage] = {}
        self._observed_s: dict[str, float] = {}

    def begin(self, pod: Pod, prompt_tokens: float, now_s: float, owner: Owner | None = None) -> None:
        """Record that a pod is running, and how long its prompt should be; before it has started it uses no energy.

        Kubernetes reports the start in whole seconds, so within the following second the moment at which the pod was
        first seen running counts instead.
        """
        if pod.node is None or pod.started_s is None or pod.uid in self._nodes:
            return
        start_s = min(max(now_s, pod.started_s), pod.started_s + 1.0)
        self._put(pod.node, Span(pod.uid, start_s, FOREVER_S, prompt_tokens, owner=owner))

    def end(self, pod: Pod, now_s: float, owner: Owner | None = None) -> None:
        """Record that a pod has left its node; one that never ran is forgotten.

        If it does not say when it ended, the first time that it is missed counts.
        """
        if pod.node is None:
            return
        if pod.started_s is None:
            self.forget(pod.uid)
            return
        known = self._spans[pod.node].find(pod.uid)
        if known is None or known.end_s == FOREVER_S or pod.finished_s is not None:
            expected = known.prompt_tokens if known else 0.0
            self._put(pod.node, replace(_read_span(pod, now_s, expected), owner=owner))
        # Of the other nodes one at a time: some get no more tasks, or have left.
        for node in dict.fromkeys((pod.node, next(iter(self._spans)))):
            self._prune(node, now_s)

    def measure(self, pod: Pod, transmission_energy_j: float, now_s: float) -> Attribution | None:
        """Return a finished pod's energy, including transmission; None while samples are still awaited."""
        node = pod.node
        if node is None or pod.timing is Timing.UNKNOWN:
            return MISSING
        own = self._find_own(node, pod, now_s)
        is_covered = self._find_coverage(node, own.end_s, now_s)
        if not is_covered:
            return None if is_covered is None else MISSING
        intervals = self._history.intervals(node, own.start_s, own.end_s, lambda: self.find_presence(node))
        if not len(intervals.times_s):
            return MISSING
        first_s, last_s = intervals.times_s[0], intervals.times_s[-1]
        tasks, foreign = self.list_windows(node, first_s, last_s, own)
        idle_w = self.find_idle_power_w(node, intervals.meters)
        share = attribute(intervals, [*tasks, *foreign], idle_w, wanted={own.pod_uid})[own.pod_uid]
        if share.energy_j is None:
            return share
        quality = _limit_quality(share.quality, pod.timing)
        return Attribution(share.energy_j + transmission_energy_j, quality, share.idle_j)

    def is_awaited(self, pod: Pod, now_s: float) -> bool:
        """Whether a finished pod cannot be measured yet: the samples, or pods that ran at the same time, may follow."""
        if pod.node is None or pod.timing is Timing.UNKNOWN:
            return False
        end_s = self._find_own(pod.node, pod, now_s).end_s
        return self._find_coverage(pod.node, end_s, now_s) is None

    def find_pause_s(self, pod: Pod, now_s: float) -> float:
        """Return after which pause to try again to measure a finished pod; seconds."""
        return max(self.retry_s, (pod.finished_s or now_s) + SETTLING_S - now_s)

    def list_windows(
        self, node: str, first_s: float, last_s: float, own: Span | None = None
    ) -> tuple[list[Window], list[Window]]:
        """Return the windows of the tasks on a node, and of foreign requests, that overlap a time.

        ``own`` is a task that counts in any case.
        """
        self._observe(node)
        others = self._spans[node].select(first_s, last_s)
        spans = [own, *(one for one in others if one.pod_uid != own.pod_uid)] if own else others
        # The usage is that of the node, so that a task has the same weight whichever other is measured.
        tasks = weigh(spans, self._usages.get(node, Usage()), self._select_nearby(node, spans, last_s))
        usual = sum(window.weight for window in tasks) / len(tasks) if tasks else 1.0
        foreign = self._foreign.list_windows(node, usual)
        return tasks, [one for one in foreign if one.start_s < last_s and one.end_s > first_s]

    def find_owner(self, node: str, pod_uid: str) -> Owner | None:
        """Return whose a pod on a node is; None if that is unknown."""
        span = self._spans[node].find(pod_uid)
        return None if span is None else span.owner

    def find_begun_s(self, node: str) -> float:
        """Return since when there have been tasks on a node that still run; infinite if there are none."""
        return self._spans[node].begun_s

    def find_idle_power_w(self, node: str, meters: tuple[str, ...]) -> float | None:
        """Return the idle power of a node as these meters measure it; None if they never saw it idle."""
        self._observe(node)
        return self._idle_power.get(node, meters)

    def find_presence(self, node: str) -> Presence:
        """Return how many tasks and foreign loads there were on a node at each moment of the last minutes."""
        return count_present(self._list_windows(node))

    def forget(self, pod_uid: str) -> None:
        """Forget the open window of a pod that is gone; closed ones still matter for other pods."""
        node = self._nodes.get(pod_uid)
        if node is not None and self._spans[node].forget_running(pod_uid):
            del self._nodes[pod_uid]

    def _find_own(self, node: str, pod: Pod, now_s: float) -> Span:
        """Return when the inference of a finished pod ran."""
        known = self._spans[node].find(pod.uid)
        return _read_span(pod, now_s) if known is None or known.end_s == FOREVER_S else known

    def _find_coverage(self, node: str, end_s: float, now_s: float) -> bool | None:
        """Return whether the samples cover a run that ended at a time; None while more samples or pods may follow."""
        if now_s < end_s + SETTLING_S:
            return None
        is_covered = self._history.covers(node, end_s)
        return is_covered if is_covered or now_s - end_s >= self._patience_s else None

    def _put(self, node: str, span: Span) -> None:
        self._spans[node].put(span)
        self._nodes[span.pod_uid] = node

    def _prune(self, node: str, now_s: float) -> None:
        """Forget what is too old of a node, which then comes last in the rotation, unless nothing is left of it."""
        spans = self._spans.pop(node)
        for pod_uid in spans.forget_ended(now_s - self._window_s):
            self._nodes.pop(pod_uid, None)
        if spans:
            self._spans[node] = spans
        else:
            self._usages.pop(node, None)
            self._observed_s.pop(node, None)

    def _observe(self, node: str) -> None:
        """Estimate the idle power and the usage of a node, which takes long, if that is due."""
        now_s = self._now()
        if now_s - self._observed_s.get(node, -FOREVER_S) < OBSERVATION_S:
            return
        self._observed_s[node] = now_s
        intervals = self._history.intervals(node, presence=lambda: self.find_presence(node))
        self._idle_power.observe(node, intervals, self._list_windows(node))
        usage = observe_usage(self._spans[node].ended, self._count_gpus(node))
        idle_w = self._idle_power.get(node, intervals.meters)
        busy = self.find_presence(node)
        self._usages[node] = observe_reading_power(usage, self._spans[node].ended, intervals, idle_w, busy)

    def _select_nearby(self, node: str, spans: Sequence[Span], last_s: float) -> list[Span]:
        """Return the other spans of a node that overlap any of these, of which running ones count until a time."""
        if not spans:
            return []
        uids = {span.pod_uid for span in spans}
        end_s = max(last_s if span.end_s == FOREVER_S else span.end_s for span in spans)
        around = self._spans[node].select(min(span.start_s for span in spans), end_s)
        return [span for span in around if span.pod_uid not in uids]

    def _list_windows(self, node: str) -> list[Window]:
        tasks = [Window(span.pod_uid, span.start_s, span.end_s) for span in self._spans[node]]
        return [*tasks, *self._foreign.list_windows(node, 1.0)]


def _limit_quality(quality: EnergyQuality, timing: Timing) -> EnergyQuality:
    """Return the quality of an energy; at most coarse if the window is not by the clock of the node."""
    return quality if timing is Timing.NODE else EnergyQuality.COARSE


def _read_span(pod: Pod, now_s: float, expected_prompt: float = 0.0) -> Span:
    """Return when the pod's inference ran: according to its report, else as long as its container ran.

    A container may keep running after its inference, to store the answer. Then the times of the report count, if they
    lie within those of the container.
    """
    report = pod.report
    prompt, output = (report.prompt_tokens or 0, report.output_tokens or 0) if report else (expected_prompt, 0)
    end_s = now_s if pod.finished_s is None else pod.finished_s
    start_s = end_s if pod.started_s is None else pod.started_s
    if report and report.inference_seconds:
        window = report.inference_window()
        if window and pod.started_s is not None and pod.started_s - 1.0 <= window[0] and window[1] <= end_s:
            end_s = window[1]
        # Inference cannot begin before its container; one second of tolerance, since that start is rounded down.
        start_s = max(end_s - report.inference_seconds, start_s - 1.0)
    start_s = min(start_s, end_s - MIN_SPAN_S)
    return Span(pod.uid, start_s, end_s, prompt, output, _find_first_token_s(report, start_s, end_s))


def _find_first_token_s(report: RunReport | None, start_s: float, end_s: float) -> float | None:
    """Return when the only prompt of a run had been read; None if there were several, or the report does not say."""
    if report is None or report.time_to_first_token_seconds is None or (report.prompts or 1) > 1:
        return None
    first_token_s = start_s + report.time_to_first_token_seconds
    return first_token_s if first_token_s < end_s else None
