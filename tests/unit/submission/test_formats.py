from datetime import UTC, datetime

import orjson

from perllm.api.task_status import TaskPhase
from perllm.submission.answers import AnswerLine
from perllm.submission.formats import OpenAiFormat

OPENAI = OpenAiFormat({"b-0": "m", "b-1": "m"})
ANSWERED = AnswerLine(
    index=0,
    id="q-1",
    task="b-0",
    phase=TaskPhase.SUCCEEDED,
    text="Hello.",
    finish_reason="stop",
    completion_time=datetime.fromtimestamp(1_711_652_795, UTC),
    latency_seconds=1.5,
    prompt_tokens=22,
    output_tokens=2,
)
FAILED = AnswerLine(index=1, task="b-1", phase=TaskPhase.FAILED, problem="out of memory")


def test_an_answer_is_a_response_as_of_openais_batch_api() -> None:
    record = orjson.loads(OPENAI.encode(ANSWERED))

    rest = record.pop("perllm")
    assert record == {
        "id": "b-0",
        "custom_id": "q-1",
        "response": {
            "status_code": 200,
            "request_id": "b-0",
            "body": {
                "id": "b-0",
                "object": "chat.completion",
                "created": 1711652795,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Hello."},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
            },
        },
        "error": None,
    }
    assert (rest["latencySeconds"], "text" in rest) == (1.5, False)


def test_a_prompt_without_an_answer_is_an_error_named_after_its_position_if_it_has_no_id() -> None:
    record = orjson.loads(OPENAI.encode(FAILED))

    assert (record["custom_id"], record["response"]) == ("1", None)
    assert record["error"] == {"code": "task_failed", "message": "out of memory"}


def test_every_end_has_an_error_code() -> None:
    ends = (TaskPhase.REJECTED, None)
    codes = [orjson.loads(OPENAI.encode(FAILED.model_copy(update={"phase": end})))["error"]["code"] for end in ends]

    assert codes == ["task_rejected", "task_deleted"]


def test_what_a_line_says_is_read_back_without_its_text() -> None:
    for line in (ANSWERED, FAILED):
        content = OPENAI.encode(line)
        assert content.startswith(OPENAI.start)
        assert content.endswith(b"}\n")
        assert OPENAI.decode(content) == line.model_copy(update={"text": None})
