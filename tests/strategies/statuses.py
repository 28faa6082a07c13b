"""Statuses of tasks that somebody else has written."""

from hypothesis import strategies as st

from strategies.values import JSON, LONG_TEXTS, NUMBERS, ODD_TEXTS, ODD_TIMES, Object, Oddities

PHASES = ("Pending", "Scheduled", "Running", "Succeeded", "Failed", "Rejected")


def odd_statuses() -> Oddities:
    """Return what may be wrong with a task's status."""
    phases = st.sampled_from(PHASES)
    return {
        "a phase with nothing to it": st.builds(_status, phases),
        "a node that is not there": st.builds(lambda phase, node: _status(phase, nodeName=node), phases, ODD_TEXTS),
        "odd times": st.builds(
            lambda phase, field, time: _status(phase, **{field: time}),
            phases,
            st.sampled_from(["receivedTime", "scheduledTime", "startTime", "completionTime"]),
            ODD_TIMES,
        ),
        "odd attempts": st.builds(lambda phase, number: _status(phase, attempts=number), phases, NUMBERS),
        "a long message": st.builds(lambda phase, text: _status(phase, message=text), phases, LONG_TEXTS | ODD_TEXTS),
        "odd conditions": st.builds(lambda phase, list_: _status(phase, conditions=list_), phases, _odd_conditions()),
        "an odd decision": st.builds(lambda phase, one: _status(phase, decision=one), phases, _odd_decision() | JSON),
        "odd observations": st.builds(
            lambda phase, one: _status(phase, observed=one), phases, _odd_observation() | JSON
        ),
        "any status": st.dictionaries(st.sampled_from(["phase", "message", "tier", "podName", "decision"]), JSON),
    }


def _status(phase: str, **fields: object) -> Object:
    return {"phase": phase, **fields}


def _odd_conditions() -> st.SearchStrategy[object]:
    one = {
        "type": st.sampled_from(["Accepted", "Scheduled", "Completed", "DeadlineMet", "MetricsAvailable", "Mine"]),
        "status": st.sampled_from(["True", "False", "Unknown"]),
        "reason": ODD_TEXTS | st.just("Mine"),
        "message": ODD_TEXTS,
        "lastTransitionTime": ODD_TIMES,
        "observedGeneration": NUMBERS,
    }
    return st.lists(st.fixed_dictionaries(one), max_size=8) | JSON


def _odd_decision() -> st.SearchStrategy[Object]:
    return st.builds(
        lambda policy, field, number: {"policy": policy, field: number},
        ODD_TEXTS,
        st.sampled_from(["predictedLatency", "predictedEnergy", "hitChance", "score", "harm", "candidates"]),
        NUMBERS,
    )


def _odd_observation() -> st.SearchStrategy[Object]:
    fields = ["queue", "transfer", "inference", "latency", "energyJoules", "promptTokens", "outputTokens"]
    return st.dictionaries(st.sampled_from(fields), NUMBERS, min_size=1)
