import asyncio
from pathlib import Path

import pytest

from perllm.cluster.client import ApiError, ApiUnreachableError, Object
from perllm.cluster.leadership import Leadership, LeadershipError, Tenure, find_namespace
from perllm.cluster.outages import Outages
from perllm.cluster.starts import StartRecord

pytestmark = pytest.mark.looptime

OURS, OTHERS = "pod-a_11111111", "pod-ab_22222222"


def lease(holder: str, renewals: int, duration_s: int = 15) -> Object:
    return {"spec": {"holderIdentity": holder, "renewTime": f"time {renewals}", "leaseDurationSeconds": duration_s}}


class Api:
    """A Lease that `holder` renews every two seconds."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.renewed_until_s = 1e9
        self.error: ApiError | None = None
        self.patch_error: ApiError | None = None
        self.hangs = False

    async def patch(self, path: str, body: list[Object], *, kind: str) -> Object:
        assert kind == "application/json-patch+json"
        test, replacement = body
        assert (test["op"], test["path"]) == ("test", replacement["path"])
        assert test["value"] == self.holder
        if self.patch_error is not None:
            raise self.patch_error
        self.holder = replacement["value"]
        return {}

    async def get(self, path: str) -> Object:
        assert path == "/apis/coordination.k8s.io/v1/namespaces/home/leases/turns"
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        now_s = asyncio.get_running_loop().time()
        return lease(self.holder, int(min(now_s, self.renewed_until_s) // 2))


def follow(api: Api, starts: StartRecord | None = None) -> tuple[Leadership, asyncio.Task[None]]:
    now = asyncio.get_running_loop().time
    leadership = Leadership(
        api,  # type: ignore[arg-type]
        "home",
        "turns",
        hostname="pod-a",
        now=now,
        outages=Outages(now),
        starts=starts,
    )
    return leadership, asyncio.create_task(leadership.run())


async def test_it_is_won_once_the_own_pod_renews() -> None:
    leadership, running = follow(Api(OURS))
    async with asyncio.timeout(4):
        await leadership.won.wait()
    running.cancel()


@pytest.mark.parametrize("holder", [OTHERS, "", "pod-a", "pod-a.other_3"])
async def test_it_is_not_won_while_another_holds_the_lease(holder: str) -> None:
    leadership, running = follow(Api(holder))
    await asyncio.sleep(60)
    assert not leadership.won.is_set()
    assert leadership.holder == holder
    running.cancel()


async def test_a_lease_that_nobody_renews_is_not_won() -> None:
    api = Api(OURS)
    api.renewed_until_s = 0
    leadership, running = follow(api)
    await asyncio.sleep(60)
    assert not leadership.won.is_set()
    running.cancel()


async def test_a_standby_takes_over_within_a_second_of_its_scheduler() -> None:
    api = Api(OTHERS)
    leadership, running = follow(api)
    await asyncio.sleep(20)
    api.holder = OURS
    async with asyncio.timeout(1):
        await leadership.won.wait()
    running.cancel()


async def test_it_ends_when_another_takes_the_lease() -> None:
    api = Api(OURS)
    leadership, running = follow(api)
    await leadership.won.wait()
    api.holder = OTHERS
    with pytest.raises(LeadershipError, match=f"lost the lease home/turns to {OTHERS}"):
        async with asyncio.timeout(2):
            await running


@pytest.mark.parametrize("trouble", ["unreachable", "hangs", "not renewed"])
async def test_it_ends_before_another_may_begin_when_no_renewal_is_seen(trouble: str) -> None:
    api = Api(OURS)
    leadership, running = follow(api)
    await leadership.won.wait()
    await asyncio.sleep(10)
    start_s = asyncio.get_running_loop().time()
    api.renewed_until_s = start_s
    api.hangs = trouble == "hangs"
    api.error = ApiUnreachableError("gone") if trouble == "unreachable" else None
    with pytest.raises(LeadershipError):
        await running
    assert 8 < asyncio.get_running_loop().time() - start_s < 13.2


async def test_a_short_outage_of_the_api_server_ends_nothing() -> None:
    api = Api(OURS)
    leadership, running = follow(api)
    await leadership.won.wait()
    api.error = ApiUnreachableError("gone")
    await asyncio.sleep(8)
    api.error = None
    await asyncio.sleep(60)
    assert not running.done()
    running.cancel()


async def test_it_waits_where_the_lease_does_not_exist_or_may_not_be_read(caplog: pytest.LogCaptureFixture) -> None:
    api = Api(OURS)
    leadership, running = follow(api)
    api.error = ApiError(404, "NotFound", "")
    await asyncio.sleep(5)
    assert caplog.text == ""
    api.error = ApiError(403, "Forbidden", "no right")
    await asyncio.sleep(60)
    assert caplog.text.count("reading the lease home/turns: ApiError: 403 Forbidden: no right") == 1
    api.error = None
    await asyncio.sleep(5)
    assert leadership.won.is_set()
    running.cancel()


def test_a_renewal_counts_from_the_look_before_it() -> None:
    tenure = Tenure("pod-a")
    tenure.observe(lease(OURS, 1), 100)
    assert tenure.left_s(100) == 0
    tenure.observe(lease(OURS, 2), 108)
    assert tenure.left_s(111) == 1
    assert tenure.left_s(112) == 0


def test_a_released_lease_is_lost_at_once() -> None:
    tenure = Tenure("pod-a")
    tenure.observe(lease(OURS, 1), 1)
    tenure.observe(lease(OURS, 2), 2)
    tenure.observe(lease("", 3, duration_s=1), 3)
    assert tenure.left_s(3) == 0


def test_the_namespace_is_told_by_the_environment_or_the_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "namespace"
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    with pytest.raises(LeadershipError, match="set POD_NAMESPACE"):
        find_namespace(file)
    file.write_text("from-file\n")
    assert find_namespace(file) == "from-file"
    monkeypatch.setenv("POD_NAMESPACE", "from-environment")
    assert find_namespace(file) == "from-environment"


def test_a_holder_is_named_in_one_clean_line() -> None:
    tenure = Tenure("pod-a")
    tenure.observe(lease("\x1b[31mpod-b\nwon", 1), 1)
    assert tenure.holder == "pod-b won"


def record(folder: Path) -> StartRecord:
    return StartRecord(folder / "starts.json", asyncio.get_running_loop().time)


async def crash(api: Api, starts: StartRecord, after_s: float = 10.0) -> str:
    """Start an operator, let it crash, and return who holds the lease then."""
    _, running = follow(api, starts)
    await asyncio.sleep(after_s)
    running.cancel()
    return api.holder


async def test_an_operator_that_crashes_repeatedly_gives_the_lease_up(tmp_path: Path) -> None:
    api, starts = Api(OURS), record(tmp_path)
    assert [await crash(api, starts) for _ in range(3)] == [OURS, OURS, "given up by pod-a"]


@pytest.mark.parametrize("trouble", ["unreachable", "hangs"])
async def test_a_start_while_the_api_server_is_silent_counts_once_it_answers(tmp_path: Path, trouble: str) -> None:
    api, starts = Api(OURS), record(tmp_path)
    for _ in range(2):
        await crash(api, starts)
    api.hangs = trouble == "hangs"
    api.error = ApiUnreachableError("gone") if trouble == "unreachable" else None
    _, running = follow(api, starts)
    await asyncio.sleep(5)
    assert api.holder == OURS
    api.hangs, api.error = False, None
    await asyncio.sleep(3)
    assert api.holder == "given up by pod-a"
    running.cancel()


async def test_an_operator_that_gave_the_lease_up_is_active_once_its_scheduler_acquires_it_again(
    tmp_path: Path,
) -> None:
    api, starts = Api(OURS), record(tmp_path)
    for _ in range(2):
        await crash(api, starts)
    leadership, running = follow(api, starts)
    await asyncio.sleep(11)
    assert not leadership.won.is_set()
    api.holder = OURS
    async with asyncio.timeout(2):
        await leadership.won.wait()
    assert not running.done()
    running.cancel()


async def test_crashes_that_are_minutes_apart_change_nothing(tmp_path: Path) -> None:
    api, starts = Api(OURS), record(tmp_path)
    assert [await crash(api, starts, after_s=61) for _ in range(6)] == [OURS] * 6


async def test_crashes_of_a_standby_change_nothing(tmp_path: Path) -> None:
    api, starts = Api(OTHERS), record(tmp_path)
    assert [await crash(api, starts) for _ in range(6)] == [OTHERS] * 6


@pytest.mark.parametrize("content", ["", "[1, ", "{}", '["a", 1e999]'])
async def test_a_record_that_cannot_be_read_is_begun_again(tmp_path: Path, content: str) -> None:
    api, starts = Api(OURS), record(tmp_path)
    starts.file.write_text(content)
    assert [await crash(api, starts) for _ in range(3)] == [OURS, OURS, "given up by pod-a"]


async def test_a_record_that_cannot_be_written_keeps_no_operator_from_being_active(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leadership, running = follow(Api(OURS), StartRecord(tmp_path, asyncio.get_running_loop().time))
    async with asyncio.timeout(4):
        await leadership.won.wait()
    assert "repeated crashes are not recognised" in caplog.text
    running.cancel()


async def test_an_operator_that_may_not_give_the_lease_up_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api, starts = Api(OURS), record(tmp_path)
    for _ in range(2):
        await crash(api, starts)
    api.patch_error = ApiError(403, "Forbidden", "no right")
    leadership, running = follow(api, starts)
    async with asyncio.timeout(4):
        await leadership.won.wait()
    assert "the lease home/turns cannot be given up: ApiError: 403 Forbidden: no right" in caplog.text
    running.cancel()
