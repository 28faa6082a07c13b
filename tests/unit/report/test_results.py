import pytest

from perllm_lab.report.results import join_runs
from perllm_lab.workload.requests import Request

POD = {"kind": "pod", "pod": "a-1", "task": "a", "tier": "edge", "energy_j": 5.0}
REQUEST = {"kind": "request", "request": "uid/1", "task": "b", "tier": "cloud", "energy_j": 7.0}


def test_runs_of_pods_and_of_requests_are_joined_alike():
    ends = {"outcome": "Succeeded", "finished": "1970-01-01T00:00:03.500000+00:00"}
    aborted = {**REQUEST, **ends, "outcome": "Aborted", "energy_j": 1.0}
    requests = [Request(name, "chat", 0.0, 10, 10, 0, 25.0) for name in "abc"]
    truth = [{"kind": "fleet"}, {**POD, **ends}, aborted, {**REQUEST, **ends}]
    a, b, c = join_runs(requests, dict.fromkeys("abc", 1.0), truth, speed=2.0)
    assert (a.tier, a.latency_s, a.energy_j) == ("edge", pytest.approx(5.0), 5.0)
    assert (b.tier, b.latency_s, b.energy_j) == ("cloud", pytest.approx(5.0), 7.0)
    assert (c.tier, c.latency_s, c.met) == (None, None, False)
