"""Answers of a Prometheus that is none, or is not well."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from strategies.values import JSON, NESTED, NUMBERS, ODD_TEXTS, Oddities, encode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gets; `drip_s` is the pause between two of its bytes."""

    body: bytes
    status: int = 200
    drip_s: float = 0.0


def odd_answers() -> Oddities:
    """Return what may be wrong with the answer to a query."""
    return {
        "not JSON": st.sampled_from([b"", b"<html>Log in</html>", b"{", b"\xff\xfe", b"NaN", b"x" * 300_000]).map(
            Answer
        ),
        "any JSON": JSON.map(encode).map(Answer),
        "a status": st.sampled_from([204, 302, 401, 403, 404, 422, 429, 500, 503]).map(
            lambda code: Answer(b"{}", code)
        ),
        "data of any type": JSON.map(lambda data: _answer({"status": "success", "data": data})),
        "a result of any type": JSON.map(_result),
        "odd series": st.lists(JSON, min_size=1, max_size=3).map(_result),
        "odd labels": JSON.map(lambda labels: _result([{"metric": labels, "values": [[1, "1"]]}])),
        "odd samples": st.lists(_odd_samples(), min_size=1, max_size=3).map(
            lambda values: _result([{"metric": {"node": "t4-0"}, "values": values}])
        ),
        "odd figures": st.builds(_figures, NUMBERS, ODD_TEXTS),
        "deep": NESTED.map(_result),
        "dripping": st.just(Answer(b'{"status":"success","data":{"resultType":"matrix","result":[]}}', drip_s=0.5)),
    }


def _odd_samples() -> st.SearchStrategy[Any]:
    values = st.sampled_from(["NaN", "+Inf", "-Inf", "1e400", "-1", "x", ""])
    return JSON | st.builds(lambda time, value: [time, value], NUMBERS, values)


def _figures(time: float, name: str) -> Answer:
    labels = {"node": "t4-0", "Hostname": name, "UUID": name, "device": name}
    return _result([{"metric": labels, "values": [[time, "5"], [time, "4"], [0, "1e308"]]}])


def _result(result: Any) -> Answer:
    return _answer({"status": "success", "data": {"resultType": "matrix", "result": result}})


def _answer(body: Any) -> Answer:
    return Answer(encode(body))
