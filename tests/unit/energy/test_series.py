import pytest

from perllm.energy.series import MAX_DEVICES, DeviceHistory


@pytest.fixture
def history() -> DeviceHistory:
    return DeviceHistory(length_s=100, max_samples=50, keep_repeated=False)


def times_of(history: DeviceHistory) -> list[float]:
    return list(history.devices("n")["gpu"].times_s)


def test_overlapping_answers_are_merged_by_time(history: DeviceHistory) -> None:
    history.merge("n", "gpu", [(1, 10), (3, 30)], now_s=3)
    history.merge("n", "gpu", [(1, 10), (2, 20), (3, 30), (4, 40)], now_s=4)

    assert times_of(history) == [1, 2, 3, 4]
    assert list(history.devices("n")["gpu"].values) == [10, 20, 30, 40]


def test_only_the_last_minutes_are_kept(history: DeviceHistory) -> None:
    history.merge("n", "gpu", [(1, 10), (99, 20), (100, 30)], now_s=100)
    history.forget(now_s=150)
    assert times_of(history) == [99, 100]

    history.forget(now_s=500)
    assert not history.devices("n")


def test_number_of_samples_is_bounded(history: DeviceHistory) -> None:
    history.merge("n", "gpu", [(time_s, time_s) for time_s in range(90)], now_s=90)
    history.forget(now_s=90)

    assert times_of(history) == list(range(40, 90))


def test_number_of_devices_is_bounded(history: DeviceHistory) -> None:
    taken = [history.merge("n", f"pod-{index}", [(1, 1)], now_s=1) for index in range(MAX_DEVICES + 1)]

    assert taken == [True] * MAX_DEVICES + [False]
    assert history.merge("other", "gpu", [(1, 1)], now_s=1)


def test_repeated_value_is_an_old_reading_shown_again(history: DeviceHistory) -> None:
    history.merge("n", "gpu", [(0, 0), (10, 0), (20, 0), (30, 3000), (40, 3000)], now_s=40)
    history.merge("n", "gpu", [(10, 0), (20, 0), (30, 3000), (40, 3000)], now_s=41)

    assert times_of(history) == [0, 30]


def test_part_of_a_series_reaches_over_the_window_on_both_sides(history: DeviceHistory) -> None:
    history.merge("n", "gpu", [(time_s, time_s) for time_s in range(20)], now_s=20)
    series = history.devices("n")["gpu"]

    assert list(series.select(5.5, 7.5).times_s) == [5, 6, 7, 8]
    assert list(series.select(5, 7).times_s) == [5, 6, 7]
