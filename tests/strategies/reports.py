"""Termination messages of containers that err, or lie."""

import json

from hypothesis import strategies as st

from strategies.values import DEPTHS, JSON, NUMBERS, ODD_TEXTS, ODD_TIMES, TEXTS, Oddities

FIELDS = (
    "startedAt",
    "finishedAt",
    "transferSeconds",
    "inferenceSeconds",
    "promptTokens",
    "outputTokens",
    "tokenSource",
    "timeToFirstTokenSeconds",
    "problem",
    "result",
    "truncated",
    "text",
)


def odd_reports() -> Oddities:
    """Return what may be wrong with a run report; every value is the text that the container leaves."""
    return {
        "not JSON": TEXTS
        | st.sampled_from(["{", "{'outputTokens': 5}", "\ufeff{}", "NaN", "[" * 2000, "\x00", '"\\ud83d"']),
        "any JSON": JSON.map(json.dumps),
        "a field of any type": st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1).map(json.dumps),
        "odd numbers": st.builds(
            lambda field, number: f'{{"{field}": {number}}}',
            st.sampled_from(["inferenceSeconds", "transferSeconds", "outputTokens", "promptTokens"]),
            NUMBERS.map(json.dumps)
            | st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", "1" * 400, "-0", "1e3"]),
        ),
        "odd texts": st.builds(
            lambda field, text: json.dumps({field: text, "outputTokens": 5}),
            st.sampled_from(["text", "problem", "result"]),
            ODD_TEXTS | st.sampled_from(["x" * 5000, "é" * 4000, "\udc00", "\x1b]0;mine\x07"]),
        ),
        "forged": st.builds(
            lambda start, end, seconds: json.dumps(
                {"startedAt": start, "finishedAt": end, "inferenceSeconds": seconds}
            ),
            ODD_TIMES,
            ODD_TIMES,
            st.sampled_from([0, 1e-9, 604_800, 604_801, -1]),
        ),
        "zero tokens beside text": st.sampled_from(['{"outputTokens": 0, "text": "words", "tokenSource": "usage"}']),
        "deep": st.sampled_from(DEPTHS).map(lambda depth: '{"text": ' + '{"a":' * depth + "1" + "}" * depth + "}"),
        "too long": st.sampled_from([4097, 32_000]).map(lambda size: json.dumps({"text": "x" * size})),
        "behind log lines": ODD_TEXTS.map(lambda text: f"{text}\n" + '{"outputTokens": 5}\n'),
    }
