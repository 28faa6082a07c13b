"""The commands, with an API server in memory."""

import pytest
from click.testing import CliRunner, Result

from perllm.api import names
from perllm.cli import main
from perllm.cluster.client import ApiError
from perllm.overview import display
from unit.cluster.fake_api import FakeClient
from unit.overview.objects import make_done, make_profile, make_task


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    cluster = FakeClient()
    monkeypatch.setattr(display, "Client", cluster)
    monkeypatch.setattr(display, "load_credentials", lambda *_: None)
    monkeypatch.setattr(display, "find_default_namespace", lambda *_: "team")
    cluster.store(names.task_path("team", "hello"), **make_done())
    cluster.store(names.node_profile_path("t4-1"), **make_profile("t4-1"))
    return cluster


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_top_once_shows_nodes_and_tasks_and_ends(cluster: FakeClient) -> None:
    result = run("top", "--once")
    assert result.exit_code == 0, result.output
    assert "Tasks of namespace team: 1 succeeded; 1 of 1 in time, 250 J" in result.output
    assert "t4-1" in result.output


def test_top_says_if_what_it_shows_is_what_was_known_last(cluster: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display.Watch, "is_current", False)
    assert run("top", "--once").output.startswith("NOT CURRENT: the API server cannot be watched")


def test_a_screen_is_shared_by_nodes_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert display.find_room(15) is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for lines, nodes in ((50, 23), (10, 3)):
        monkeypatch.setenv("LINES", str(lines))
        assert display.find_room(15) == nodes


def test_top_without_the_right_to_read_nodes_shows_the_tasks_and_says_so(cluster: FakeClient) -> None:
    get = cluster.get

    async def deny(path: str, **query: str) -> dict[str, object]:
        if path == names.node_profiles_path():
            raise ApiError(403, "Forbidden", "no")
        return await get(path, **query)

    cluster.get = deny  # type: ignore[method-assign]
    result = run("top", "--once")
    assert (result.exit_code, "team/hello" in result.output) == (0, True)
    assert "you may not list llmnodeprofiles" in result.output


def test_explain_takes_a_name_as_top_prints_it(cluster: FakeClient) -> None:
    other = make_done()
    cluster.store(
        names.task_path("other", "hello"), **{**other, "metadata": {**other["metadata"], "namespace": "other"}}
    )
    assert run("explain", "other/hello").output.startswith("Task other/hello (chat): in time")
    assert run("explain", "llmtask/hello", "-n", "other").output.startswith("Task other/hello")


@pytest.mark.usefixtures("cluster")
def test_explain_does_not_guess_which_of_two_namespaces_is_meant() -> None:
    result = run("explain", "other/hello", "-n", "team")
    assert (result.exit_code, "other/hello is of namespace other, not team" in result.output) == (2, True)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["", "team/", "a b", "hello?watch=1"])
def test_explain_refuses_what_is_no_name(name: str) -> None:
    result = run("explain", name)
    assert (result.exit_code, f"{name!r} is not the name of a task" in result.output) == (2, True)


@pytest.mark.parametrize("name", ["hello", "llmtask/hello", "llminferencetask.perllm.io/hello"])
def test_explain_takes_a_name_as_kubectl_prints_it(cluster: FakeClient, name: str) -> None:
    result = run("explain", name)
    assert result.output.startswith("Task team/hello (chat): in time"), result.output


def test_a_waiting_task_is_explained_with_the_models_that_are_served(cluster: FakeClient) -> None:
    waiting = {"type": "Scheduled", "status": "False", "reason": "NoModelServer", "message": "waiting: none"}
    condition = waiting | {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    cluster.store(names.task_path("team", "typo"), **make_task("typo", phase="Pending", conditions=[condition]))
    cluster.store(names.node_server_path("t4-1"), status={"models": ["chat-2"]})
    assert "No model server offers chat now; they offer chat-2." in run("explain", "typo").output


def test_a_task_that_is_not_there_is_an_error_in_one_line(cluster: FakeClient) -> None:
    cluster.fail("GET", ApiError(404, "NotFound", 'llminferencetasks.perllm.io "gone" not found'))
    result = run("explain", "gone")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
