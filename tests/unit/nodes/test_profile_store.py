import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest

from perllm.api import names
from perllm.api.node_profile import NodeProfileStatus
from perllm.api.task import Tier
from perllm.cluster.client import ApiError, ApiUnreachableError
from perllm.cluster.node import Node
from perllm.learning.learner import MAX_ARMS, Learner
from perllm.nodes import profile_store
from perllm.nodes.profile_state import export_status
from perllm.policy.table import CsUcbTable
from unit.cluster.fake_api import FakeApiServer
from unit.learning.outcomes import make_outcome
from unit.nodes.stored import to_old
from unit.nodes.stores import Saved

pytestmark = pytest.mark.looptime

NODES = {name: Node(name, f"uid-{name}", Tier.EDGE, "T4", 4.0, frozenset(), True) for name in ("a", "b")}
PROFILE_A = names.node_profile_path("a")


def start(api: FakeApiServer, policy: str = "cs-ucb-table", instance: str = "") -> tuple[Learner, Saved]:
    """Return a learner and its store, as of a process that has just started."""
    learner = Learner(CsUcbTable())
    return learner, make_store(api, learner, policy=policy, instance=instance)


def make_store(api: FakeApiServer, learner: Learner, **fields: Any) -> Saved:
    return Saved(api, learner, NODES.get, **fields)


async def learn(api: FakeApiServer, **fields: object) -> tuple[Learner, Saved]:
    """Return a learner and its store after three outcomes of one node were learned and written."""
    learner, store = start(api)
    learner.register("a", "T4")
    for number in range(3):
        learner.learn(make_outcome(number, **fields))
    await store.flush()
    return learner, store


async def test_what_was_flushed_is_restored() -> None:
    api = FakeApiServer()
    old, _ = await learn(api)
    new, store = start(api)
    assert await store.load() == 3
    assert new.export_arm("a", "m") == old.export_arm("a", "m")
    assert new.summaries("a") == old.summaries("a")
    assert new.learn(make_outcome(2)) is None
    assert new.learn(make_outcome(3)) is not None


async def test_a_profile_goes_with_its_node_and_reads_well() -> None:
    api = FakeApiServer()
    await learn(api, latency_s=5.0)
    profile = api.read(PROFILE_A)
    assert profile is not None
    assert profile["metadata"]["ownerReferences"][0] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "a",
        "uid": "uid-a",
    }
    status = profile["status"]
    assert (status["policy"], status["gpuType"], status["tier"], status["outcomes"]) == (
        "cs-ucb-table",
        "T4",
        "edge",
        3,
    )
    assert (status["meanLatencySeconds"], status["meanEnergyJoules"]) == (5.0, 310.0)
    (model,) = status["models"]
    assert (model["model"], model["deadlineMetShare"]) == ("m", 1.0)
    task = model["latency"]
    seconds = task["startSeconds"] + task["secondsPerThousandPromptTokens"] + task["secondsPerHundredOutputTokens"]
    assert seconds + task["secondsPerHundredOutputTokensAndTask"] == pytest.approx(4.0, rel=0.5)
    assert 0 < task["relativeUncertainty"] < 2
    energy = model["energy"]
    joules = energy["joulesPerThousandPromptTokens"] + energy["joulesPerHundredOutputTokens"]
    assert joules + energy["sharedJoulesPerHundredOutputTokens"] / 2 == pytest.approx(300.0, rel=0.5)
    assert model["answers"]["medianTokens"] == pytest.approx(120, rel=0.3)


async def test_only_what_changed_is_written() -> None:
    api = FakeApiServer()
    learner, store = start(api)
    for name in ("a", "b"):
        learner.register(name, "T4")
    learner.learn(make_outcome(1))
    await store.flush()
    api.calls.clear()
    await store.flush()
    learner.learn(make_outcome(2))
    await store.flush()
    assert [(method, path) for method, path, _ in api.calls] == [("PATCH", f"{PROFILE_A}/status")]


@pytest.mark.parametrize("error", [ApiUnreachableError("gone"), ApiError(409, "Conflict", ""), ApiError(403, "No", "")])
async def test_what_could_not_be_written_is_written_later_as_it_is_then(error: ApiError) -> None:
    api = FakeApiServer()
    learner, store = await learn(api)
    learner.learn(make_outcome(7))
    api.failures = [error] * 3
    await store.flush()
    profile = api.read(PROFILE_A)
    assert profile is not None
    assert profile["status"]["outcomes"] == 4


async def test_a_profile_that_went_with_an_earlier_node_of_the_name_is_made_anew() -> None:
    api = FakeApiServer()
    learner, store = await learn(api)
    api.remove(PROFILE_A)
    learner.learn(make_outcome(7))
    await store.flush()
    profile = api.read(PROFILE_A)
    assert profile is not None
    assert profile["status"]["outcomes"] == 4


async def test_a_profile_that_cannot_be_read_is_left_alone_and_its_node_starts_afresh(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = FakeApiServer()
    await learn(api)
    api.store(PROFILE_A, status={"state": {"data": "damaged"}})
    damaged = copy.deepcopy(api.read(PROFILE_A))
    new, store = start(api)
    assert await store.load() == 0
    assert "the learned state of a cannot be read, so learning starts over: state.data: " in caplog.text
    await store.flush()
    assert api.read(PROFILE_A) == damaged
    new.register("a", "T4")
    assert new.summaries("a") == {}
    assert new.learn(make_outcome(1)) is not None


async def test_a_profile_that_cannot_be_read_keeps_no_other_from_being_read() -> None:
    api = FakeApiServer()
    await learn(api)
    status = api.read(PROFILE_A)["status"]  # type: ignore[index]
    api.store(names.node_profile_path("0-first"), status={**status, "schemaVersion": "x"})
    api.store(names.node_profile_path("b"))
    api.store(names.node_profile_path("1-odd"), status=["text"])
    _, store = start(api)
    assert await store.load() == 3


async def test_a_profile_that_shows_only_the_circuit_of_its_node_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApiServer()
    api.store(PROFILE_A, status={"schemaVersion": 1, "models": [], "state": {}, "circuit": {"state": "open"}})
    _, store = start(api)
    assert await store.load() == 0
    assert store.tripped == {"a"}
    assert caplog.text == ""


async def test_a_profile_of_version_2_is_carried_over() -> None:
    api = FakeApiServer()
    old, _ = await learn(api)
    status = to_old(api.read(PROFILE_A)["status"])  # type: ignore[index]
    api.remove(PROFILE_A)
    api.store(PROFILE_A, status=status)
    new, store = start(api)
    assert await store.load() == 3
    assert new.export_arm("a", "m") == old.export_arm("a", "m")
    assert new.learn(make_outcome(4)) is not None
    await store.flush()
    written = api.read(PROFILE_A)["status"]  # type: ignore[index]
    assert (written["schemaVersion"], list(written["state"])) == (3, ["data"])
    assert "recent" not in written
    assert "state" not in written["models"][0]


async def test_forgotten_models_are_told_once_per_burst_counted_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    api, counts = FakeApiServer(), []
    learner = Learner(CsUcbTable())
    store = make_store(api, learner, count_forgotten=counts.append)
    learner.register("a", "T4")
    for number in range(MAX_ARMS + 20):
        learner.learn(make_outcome(number, model=f"m-{number}"))
        if number >= MAX_ARMS:
            await store.flush()
    assert sum(counts) == 20
    assert caplog.text.count("a has had tasks of more than 64 models") == 1
    status = api.read(PROFILE_A)["status"]  # type: ignore[index]
    assert (status["forgottenModels"], len(status["models"])) == (20, MAX_ARMS)
    restarted, store = start(api)
    await store.load()
    assert restarted.forgotten["a"] == 20


async def test_of_a_state_that_another_policy_wrote_only_the_laws_are_taken_over() -> None:
    api = FakeApiServer()
    old, _ = await learn(api)
    new, store = start(api, policy="another")
    assert await store.load() == 3
    assert new.export_arm("a", "m")["latency"] == old.export_arm("a", "m")["latency"]
    assert new.export_arm("a", "m")["policy"]["plays"] == 0


async def test_loading_waits_for_the_api_server() -> None:
    api = FakeApiServer()
    await learn(api)
    api.failures = [ApiUnreachableError("no answer")] * 5
    _, store = start(api)
    assert await store.load() == 3


async def test_missing_resources_are_named() -> None:
    api = FakeApiServer()
    api.failures = [ApiError(404, "NotFound", "the server could not find the requested resource")]
    with pytest.raises(ApiError, match=r"perllm crds \| kubectl apply"):
        await start(api)[1].load()


async def test_it_writes_behind_the_hot_path() -> None:
    api = FakeApiServer()
    learner, store = start(api)
    learner.register("a", "T4")
    running = [asyncio.create_task(part.run()) for part in (store, store.writes)]
    for number in range(10):
        learner.learn(make_outcome(number))
        await asyncio.sleep(0.1)
    assert api.calls == []
    await asyncio.sleep(2)
    assert len(api.calls_of("PATCH")) == 1
    for part in running:
        part.cancel()


async def test_operators_of_several_instances_keep_profiles_of_their_own() -> None:
    api = FakeApiServer()
    counts = {"": 3, "north": 2, "nor": 1}
    for instance, count in counts.items():
        learner, store = start(api, instance=instance)
        learner.register("a", "T4")
        for number in range(count):
            learner.learn(make_outcome(number))
        await store.flush()
    for instance, count in counts.items():
        learner, store = start(api, instance=instance)
        assert await store.load() == count
        assert learner.summaries("a")["m"].count == count
        assert api.read(names.node_profile_path(f"{instance}.a" if instance else "a"))["status"]["outcomes"] == count  # type: ignore[index]


async def test_a_profile_that_was_deleted_is_written_again() -> None:
    api = FakeApiServer()
    _, store = await learn(api)
    before = api.read(PROFILE_A)
    api.remove(PROFILE_A)
    store.note_missing("a")
    store.note_missing("b")
    await store.flush()
    after = api.read(PROFILE_A)
    assert before is not None
    assert after is not None
    assert after["status"]["outcomes"] == before["status"]["outcomes"] == 3
    assert api.read(names.node_profile_path("b")) is None


async def test_what_was_learned_on_a_node_that_left_is_written_when_it_returns() -> None:
    api, nodes = FakeApiServer(), dict[str, Node]()
    learner = Learner(CsUcbTable())
    store = Saved(api, learner, nodes.get)
    learner.register("a", "T4")
    learner.learn(make_outcome(0))
    await store.flush()
    assert api.read(PROFILE_A) is None
    assert learner.revisions.is_stored("a", learner.revisions.current("a"))
    nodes["a"] = NODES["a"]
    await store.flush()
    profile = api.read(PROFILE_A)
    assert profile is not None
    assert profile["status"]["outcomes"] == 1


async def test_an_outcome_counts_as_stored_once_the_profile_with_it_is_written() -> None:
    api = FakeApiServer()
    learner, store = await learn(api)
    learner.learn(make_outcome(3))
    revision = learner.revisions.current("a")
    assert not learner.revisions.is_stored("a", revision)
    await store.flush()
    assert learner.revisions.is_stored("a", revision)
    learner.learn(make_outcome(4))
    assert learner.revisions.is_stored("a", revision)
    assert not learner.revisions.is_stored("a", learner.revisions.current("a"))


async def test_profiles_that_changed_together_leave_the_event_loop_to_others_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = {str(number): replace(NODES["a"], name=str(number)) for number in range(40)}
    learner = Learner(CsUcbTable())
    for name, node in nodes.items():
        learner.register(name, node.gpu_type)
        learner.learn(make_outcome(int(name), node=name))
    store, passes = Saved(FakeApiServer(), learner, nodes.get), [0]

    def export(*arguments: Any) -> NodeProfileStatus:
        passes[-1] += 1
        return export_status(*arguments)

    monkeypatch.setattr(profile_store, "export_status", export)
    flushing = asyncio.create_task(store.flush())
    while not flushing.done():
        passes.append(0)
        await asyncio.sleep(0)
    assert (sum(passes), max(passes)) == (40, 1)


async def learn_on_many_nodes(api: FakeApiServer, count: int) -> None:
    nodes = {str(number): replace(NODES["a"], name=str(number)) for number in range(count)}
    learner = Learner(CsUcbTable())
    for name, node in nodes.items():
        learner.register(name, node.gpu_type)
        learner.learn(make_outcome(int(name), node=name))
    await Saved(api, learner, nodes.get).flush()


async def test_while_profiles_are_restored_the_event_loop_is_left_to_others_such_as_the_lease() -> None:
    api, passes = FakeApiServer(), [0]
    await learn_on_many_nodes(api, 40)

    def restore(*_: object) -> int:
        passes[-1] += 1
        return 1

    loading = asyncio.create_task(make_store(api, Learner(CsUcbTable()), restore=restore).load())
    while not loading.done():
        passes.append(0)
        await asyncio.sleep(0)
    assert (loading.result(), max(passes)) == (40, 1)


async def test_profiles_are_read_in_pages() -> None:
    api = FakeApiServer()
    await learn_on_many_nodes(api, 40)
    api.page_size = 15
    api.calls.clear()
    assert await start(api)[1].load() == 40
    assert [query["limit"] for _, _, query in api.calls] == [profile_store.PAGE_SIZE] * 3


async def test_a_list_whose_next_page_is_no_longer_kept_is_begun_again_and_nothing_is_restored_twice() -> None:
    api = FakeApiServer()
    await learn_on_many_nodes(api, 40)
    api.page_size = 15
    get, calls = api.get, [0]

    async def forget_second_page(path: str, **query: str) -> dict[str, Any]:
        calls[0] += 1
        if calls[0] == 2:
            raise ApiError(410, "Expired", "the provided continue parameter is too old")
        return await get(path, **query)

    api.get = forget_second_page  # type: ignore[method-assign]
    assert await start(api)[1].load() == 40
    assert calls[0] == 5
