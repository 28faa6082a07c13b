"""What a model server is: asked over real HTTP, and shown with its problem whatever that is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from perllm.agent import probe
from perllm.agent.addresses import ServerAddress
from perllm.agent.probe import ServerProbe
from perllm.agent.slot_learning import GROW_S, SlotLearning
from perllm.api.node_server import InferenceEngine, NodeModelServer
from unit.agent.engines import FakeEngine, list_models, page
from unit.completions.model_server import Handler, hang_up

Probe = Callable[..., ServerProbe]


@pytest.fixture
async def server() -> AsyncIterator[FakeEngine]:
    async with FakeEngine.serve() as server:
        yield server


@pytest.fixture
async def open_probe(server: FakeEngine) -> AsyncIterator[Probe]:
    async with aiohttp.ClientSession() as session:

        def open_it(own: int = 0, key: str = "", slots: int | None = None) -> ServerProbe:
            return ServerProbe(
                session, ServerAddress(server.url, key, slots), lambda: own, SlotLearning(time.monotonic)
            )

        yield open_it


async def test_a_server_that_is_ready_is_shown_with_models_and_load(server: FakeEngine, open_probe: Probe) -> None:
    server.show_load(running=5, waiting=2)

    assert await open_probe(slots=8).look() == NodeModelServer(
        url=server.url,
        engine=InferenceEngine.VLLM,
        ready=True,
        models=("m",),
        slots=8,
        running=5,
        waiting=2,
        foreign=7,
        cache_use=0.25,
    )


@pytest.mark.parametrize(("own", "foreign"), [(0, 7), (4, 3), (7, 0), (9, 0)])
async def test_traffic_that_is_not_ours_is_foreign(
    server: FakeEngine, open_probe: Probe, own: int, foreign: int
) -> None:
    server.show_load(running=5, waiting=2)
    assert (await open_probe(own=own).look()).foreign == foreign


@pytest.mark.parametrize("metrics", [page("", 404), page("", 501), page("<html>", 200)])
async def test_a_server_without_metrics_has_no_foreign_traffic(
    server: FakeEngine, open_probe: Probe, metrics: Handler
) -> None:
    server.pages["/metrics"] = metrics

    state = await open_probe(own=3).look()

    assert (state.ready, state.running, state.waiting, state.foreign) == (True, None, None, 0)


async def test_the_slots_of_a_server_that_keeps_requests_waiting_are_learned(
    server: FakeEngine, open_probe: Probe
) -> None:
    server.show_load(running=5, waiting=2)
    unknown, configured = open_probe(), open_probe(slots=8)

    states = [await unknown.look() for _ in range(3)]
    settled = [await configured.look() for _ in range(3)]

    assert [(one.slots, one.slots_learned) for one in states] == [(None, None), (None, None), (5, True)]
    assert (settled[-1].slots, settled[-1].slots_learned) == (8, None)


async def test_a_server_whose_metrics_hang_is_ready(
    server: FakeEngine, open_probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "METRICS_TIMEOUT_S", 0.05)
    server.pages["/metrics"] = never
    assert (await open_probe().look()).ready


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def abort(request: web.Request) -> web.StreamResponse:
    await hang_up(request)
    return web.Response()


PROBLEMS: dict[str, tuple[str, Handler]] = {
    "its health check was answered with status 503": ("/health", page("", 503)),
    "its list of models was answered with status 401": ("/v1/models", page("", 401)),
    "it lists no models": ("/v1/models", page({"data": []})),
    "an answer is not JSON: <html> log in": ("/v1/models", page("<html> log in")),
    "answered with more than": ("/v1/models", page("x" * 5_000_000)),
    "isconnected": ("/v1/models", abort),
    "did not answer within": ("/health", never),
}


@pytest.mark.parametrize("problem", PROBLEMS)
async def test_a_server_that_is_not_ready_says_why(
    server: FakeEngine, open_probe: Probe, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.5)
    path, server.pages[path] = PROBLEMS[problem]

    state = await open_probe().look()

    assert (state.ready, state.models) == (False, ())
    assert problem in (state.problem or "")


async def test_a_list_of_models_may_be_odd_where_it_does_not_matter(server: FakeEngine, open_probe: Probe) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b'\xef\xbb\xbf{"data": [{"id": "m", "created": NaN, "path": "\xff"}]}\r\n')

    server.pages["/v1/models"] = answer
    assert (await open_probe().look()).models == ("m",)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_may_have_no_health_check(server: FakeEngine, open_probe: Probe, status: int) -> None:
    server.pages["/health"] = page("", status)
    assert (await open_probe().look()).ready


async def test_sglang_is_not_asked_for_its_health_which_would_generate_a_token(
    server: FakeEngine, open_probe: Probe
) -> None:
    server.pages["/v1/models"] = list_models("m", owner="sglang")

    state = await open_probe().look()

    assert (state.engine, state.ready) == (InferenceEngine.SGLANG, True)
    assert "/health" not in server.looks


async def test_llama_cpp_says_how_many_slots_it_has_and_is_asked_once(server: FakeEngine, open_probe: Probe) -> None:
    server.pages["/v1/models"] = list_models("m")
    server.pages["/props"] = page({"total_slots": 4})
    one = open_probe()

    states = [await one.look(), await one.look()]

    assert {(state.engine, state.slots) for state in states} == {(InferenceEngine.LLAMA_CPP, 4)}
    assert server.looks.count("/props") == 1


async def test_a_server_that_was_away_may_come_back_with_other_slots(server: FakeEngine, open_probe: Probe) -> None:
    server.pages |= {"/v1/models": list_models("m", owner="llamacpp"), "/props": page({"total_slots": 4})}
    one = open_probe()
    await one.look()
    server.pages["/health"] = page("", 503)
    await one.look()
    server.pages |= {"/health": page(""), "/props": page({"total_slots": 8})}

    assert (await one.look()).slots == 8


async def test_ollama_is_recognised_by_its_version(server: FakeEngine, open_probe: Probe) -> None:
    server.become_ollama("llama3.2:1b")

    state = await open_probe().look()

    assert (state.engine, state.models) == (InferenceEngine.OLLAMA, ("llama3.2:1b",))


async def test_what_ollama_would_have_to_load_is_known(server: FakeEngine, open_probe: Probe) -> None:
    server.become_ollama("a", "b", loaded=("b",))
    probe = open_probe()

    assert (await probe.look()).unloaded == ("a",)
    del server.pages["/api/ps"]
    assert (await probe.look()).unloaded == (), "nothing is known of an older version"


async def test_what_a_router_of_llama_cpp_would_have_to_load_is_known(server: FakeEngine, open_probe: Probe) -> None:
    listed = [
        {"id": name, "owned_by": "llamacpp", "status": {"value": value}}
        for name, value in (("a", "loaded"), ("b", "unloaded"), ("c", "loading"))
    ]
    server.pages["/v1/models"] = page({"object": "list", "data": listed})

    assert (await open_probe().look()).unloaded == ("b", "c")


async def test_a_server_of_an_unknown_engine_is_left_alone_while_it_answers_us(
    server: FakeEngine, open_probe: Probe
) -> None:
    server.pages["/v1/models"] = list_models("m")
    probe = open_probe(own=1)
    state = await probe.look()
    server.looks.clear()

    assert (state.engine, await probe.look()) == (InferenceEngine.OTHER, state)
    assert server.looks == []


async def test_what_is_learned_of_a_server_of_an_unknown_engine_counts_while_it_answers_us(server: FakeEngine) -> None:
    server.pages["/v1/models"] = list_models("m")
    now_s = 0.0
    learning = SlotLearning(lambda: now_s)
    async with aiohttp.ClientSession() as session:
        probe = ServerProbe(session, ServerAddress(server.url), lambda: 8, learning)
        assert (await probe.look()).slots is None

        learning.see_refusal(8)
        refused = await probe.look()
        now_s += GROW_S
        grown = await probe.look()

    assert [(one.slots, one.slots_learned) for one in (refused, grown)] == [(8, True), (9, True)]


async def test_the_key_goes_to_the_server_and_to_no_other(server: FakeEngine, open_probe: Probe) -> None:
    seen: list[str | None] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=307, headers={"Location": f"{server.root}/elsewhere"})

    server.pages["/v1/models"] = redirect

    state = await open_probe(key="sk-secret").look()

    assert (seen, server.looks) == (["Bearer sk-secret"], ["/v1/models"])
    assert "status 307" in (state.problem or "")
