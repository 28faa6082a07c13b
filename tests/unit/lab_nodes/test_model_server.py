import asyncio
import dataclasses
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perllm_lab.nodes.exporter import Exporter
from unit.lab_nodes.setting import SPEC, pod_object, start_node

pytestmark = pytest.mark.looptime

WARM = dataclasses.replace(SPEC, resident=True)


class Client:
    """Sends requests to the model server of one node; times are wall seconds since it was opened."""

    def __init__(self, node, session):
        self.node = node
        self._session = session
        self._start_s = self.now_s()

    def now_s(self):
        return asyncio.get_running_loop().time() - getattr(self, "_start_s", 0.0)

    def post(self, *, prompt=100, output=10, size=0, text=None, id="", **body):
        mark = f"[[lab task=task-7 prompt={prompt} output={output} bytes={size}]]"
        message = {"role": "user", "content": mark if text is None else text}
        headers = {"X-Request-Id": id} if id else {}
        content = {"model": "chat", "messages": [message], **body}
        return self._session.post("/nodes/edge-0/v1/chat/completions", json=content, headers=headers)

    async def complete(self, **request):
        async with self.post(**request) as response:
            return SimpleNamespace(status=response.status, headers=response.headers, body=await response.json())

    async def stream(self, **request):
        """Return the events of an answer and when each came."""
        events = []
        async with self.post(stream=True, **request) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    events.append((round(self.now_s(), 2), json.loads(line.removeprefix(b"data: "))))
        return events

    async def get(self, path):
        async with self._session.get(f"/nodes/edge-0{path}") as response:
            return response.status, await response.text()

    async def control(self, path):
        async with self._session.post(f"/nodes/edge-0/{path}") as response:
            assert response.status == 200

    async def metrics(self):
        _, page = await self.get("/metrics")
        families = text_string_to_metric_families(page)
        return {sample.name: sample.value for family in families for sample in family.samples}


@asynccontextmanager
async def serve(spec=SPEC):
    node = start_node(spec)
    fleet = SimpleNamespace(hosts={"edge-0": node.host}, speed=2.0, cut_power=lambda name: node.host.cut_power())
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=None)
    async with (
        Exporter(fleet) as exporter,
        aiohttp.ClientSession(f"http://127.0.0.1:{exporter.port}", timeout=timeout) as session,
    ):
        yield Client(node, session)


def read_text(events):
    return "".join(choice["delta"].get("content", "") for _, event in events for choice in event["choices"])


async def test_an_answer_comes_after_the_time_that_the_hardware_takes():
    async with serve() as client:
        answer = await client.complete(size=1_000_000)
        # simulated: round trip 1 s, 1 MB in 1 s, model load 4 s, prefill 1 s, 10 tokens in 1 s; twice as fast
        assert client.now_s() == pytest.approx(4.0, abs=0.15)
        choice = answer.body["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": "one two six ten one two six ten one two "}
        assert choice["finish_reason"] == "stop"
        assert answer.body["usage"] == {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


async def test_the_truth_of_a_request_holds_its_exact_energy_and_its_id():
    async with serve() as client:
        await client.complete(id="uid-1/2")
        (truth,) = client.node.records
        assert (truth.request, truth.task, truth.node, truth.outcome) == ("uid-1/2", "task-7", "edge-0", "Succeeded")
        assert truth.energy_j == pytest.approx(100 + 10 * 2)
        assert truth.first_token_s == pytest.approx((1 + 4 + 1) / 2)
        totals = client.node.machine.truth()
        assert totals.energy_j - totals.idle_energy_j == pytest.approx(truth.energy_j)


async def test_a_stream_begins_after_the_prefill_and_grows_at_the_pace_of_the_engine():
    async with serve(WARM) as client:
        events = await client.stream(output=100)
        times = [at_s for at_s, event in events if read_text([(at_s, event)])]
        assert times[0] == pytest.approx(1.0, abs=0.1)  # simulated: round trip 1 s, prefill 1 s
        assert times[-1] == pytest.approx(6.0, abs=0.1)  # 100 tokens in 10 s
        assert len(times) == pytest.approx(5 * 20, abs=3)  # 20 chunks a second
        halfway = [event for event in events if event[0] <= 3.5]
        assert len(read_text(halfway).split()) == pytest.approx(50, abs=2)


async def test_the_first_piece_comes_with_the_end_of_the_prefill():
    slow = dataclasses.replace(SPEC.gpu, iteration_base_s=1.0)
    async with serve(dataclasses.replace(WARM, gpu=slow)) as client:
        events = await client.stream(output=3)
        # simulated: round trip 1 s, prefill 1 s, 3 tokens of 1 s each; the first is seen before the second is due
        assert [at_s for at_s, _ in events[:-1]] == pytest.approx([1.0, 2.0, 2.5], abs=0.1)


async def test_a_stream_says_the_same_as_a_whole_answer_and_ends_with_the_reason():
    async with serve(WARM) as client:
        events = await client.stream(output=23)
        whole = await client.complete(output=23)
        assert read_text(events) == whole.body["choices"][0]["message"]["content"]
        assert events[-1][1]["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_ends_with_the_usage_if_asked_to():
    async with serve(WARM) as client:
        events = await client.stream(stream_options={"include_usage": True})
        assert [event["usage"] for _, event in events if "usage" in event] == [
            {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        ]
        assert (events[-1][1]["choices"], events[-2][1]["choices"][0]["finish_reason"]) == ([], "stop")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_is_cut_at_the_limit_of_the_request(name):
    async with serve(WARM) as client:
        answer = await client.complete(**{name: 4})
        assert answer.body["usage"]["completion_tokens"] == 4
        assert answer.body["choices"][0]["finish_reason"] == "length"
        assert client.node.records[0].energy_j == pytest.approx(100 + 4 * 2)


async def test_a_prompt_without_a_mark_is_measured_by_its_text():
    async with serve(WARM) as client:
        answer = await client.complete(text="a word, " * 50)
        assert answer.body["usage"] == {"prompt_tokens": 100, "completion_tokens": 129, "total_tokens": 229}
        assert client.node.records[0].input_bytes == pytest.approx(400, abs=100)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"model": "other"}, 404, "The model `other` does not exist."),
        ({"messages": []}, 400, "messages must be a list"),
        ({"messages": [{"role": "user"}]}, 400, "every message must have a content"),
        ({"max_tokens": "many"}, 400, "max_tokens must be a whole number of at least 1, not many"),
    ],
)
async def test_a_wrong_request_is_answered_with_an_error_in_openais_form(request_, status, words):
    async with serve() as client:
        answer = await client.complete(**request_)
        assert answer.status == status
        assert words in answer.body["error"]["message"]


async def test_pods_and_requests_share_the_batch_and_its_energy():
    async with serve(WARM) as client:
        client.node.kubelet.see(pod_object(output="100"))
        await client.complete(output=100)
        await asyncio.sleep(10)
        pod, request = sorted(client.node.records, key=lambda truth: hasattr(truth, "request"))
        # The request decodes 1 s alone (20 J), waits 1 s for the pod's prefill, then both share 3 J an iteration.
        assert request.energy_j == pytest.approx(100 + 20 + 90 * 1.5)
        assert pod.energy_j == pytest.approx(100 + 90 * 1.5 + 20)


async def test_a_request_beyond_the_batch_waits_until_the_client_of_another_closes_its_connection():
    async with serve(WARM) as client:
        leaving, staying = (asyncio.create_task(ask(output=1000)) for ask in (client.complete, client.stream))
        await asyncio.sleep(5)
        waiting = asyncio.create_task(client.complete(output=10))
        await asyncio.sleep(5)
        assert not waiting.done()
        leaving.cancel()
        await waiting
        assert client.now_s() == pytest.approx(
            10 + (1 + 1) / 2, abs=0.15
        )  # prefill 1 s, 10 tokens in 1 s, twice as fast
        aborted, answered = client.node.records
        assert (aborted.outcome, answered.outcome) == ("Aborted", "Succeeded")
        # In 10 s: round trip, its own prefill, 1 token alone in 0.1 s or the prefill of the other, then both.
        assert aborted.output_tokens == pytest.approx((20 - 3) * 10, abs=12)
        staying.cancel()


async def test_a_full_server_asks_for_a_retry():
    async with serve(WARM) as client:
        await client.control("server/max-waiting/1")
        sent = [asyncio.create_task(client.complete(output=100)) for _ in range(3)]
        await asyncio.sleep(3)
        answer = await client.complete()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        await asyncio.gather(*sent)
        await client.control("server/max-waiting/any")
        assert (await client.complete()).status == 200


async def test_the_metrics_have_the_names_of_vllm():
    async with serve(WARM) as client:
        client.node.kubelet.see(pod_object(output="1000"))
        await client.complete(output=10)
        sent = [asyncio.create_task(client.stream(output=1000)) for _ in range(3)]
        await asyncio.sleep(10)
        page = await client.metrics()
        assert page["vllm:num_requests_running"] == 2  # the pod and one request
        assert page["vllm:num_requests_waiting"] == 2
        assert page["vllm:kv_cache_usage_perc"] == 1.0
        assert page["vllm:prompt_tokens_total"] == 3 * 100
        assert page["vllm:generation_tokens_total"] > 10 + 2 * 50
        assert page["vllm:time_to_first_token_seconds_count"] == 1
        assert page["vllm:time_to_first_token_seconds_sum"] == pytest.approx(0.5)  # prefill 1 s, twice as fast
        for task in sent:
            task.cancel()


async def test_a_server_may_have_no_metrics():
    async with serve(WARM) as client:
        await client.control("server/hide-load")
        assert (await client.get("/metrics"))[0] == 404
        assert (await client.complete()).status == 200


async def test_the_server_lists_its_model():
    async with serve() as client:
        _, page = await client.get("/v1/models")
        assert [model["id"] for model in json.loads(page)["data"]] == ["chat"]


@pytest.mark.parametrize("fault", ["cut-power", "server/stop"])
async def test_a_fault_loses_what_runs_and_nothing_is_answered(fault):
    async with serve(WARM) as client:
        streamed = asyncio.create_task(client.stream(output=1000))
        whole = asyncio.create_task(client.complete(output=1000))
        await asyncio.sleep(5)
        await client.control(fault)
        for request in (streamed, whole, client.get("/health"), client.complete()):
            with pytest.raises(aiohttp.ClientError):
                await request
        assert [truth.outcome for truth in client.node.records] == ["Lost", "Lost"]


async def test_a_server_that_starts_again_answers():
    async with serve(WARM) as client:
        await client.control("server/stop")
        await client.control("server/start")
        assert await client.get("/health") == (200, "")
        assert (await client.complete()).status == 200
