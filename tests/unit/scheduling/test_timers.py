from perllm.scheduling.timers import MIN_KEPT, Timers


def test_dropped_calls_are_forgotten_long_before_they_would_be_due() -> None:
    timers = Timers()
    made: list[str] = []
    timers.call_at(5.0, lambda: made.append("kept"))
    for _ in range(10 * MIN_KEPT):
        timers.call_at(86400.0, lambda: made.append("dropped")).cancel()
    assert len(timers) <= MIN_KEPT
    timers.run(1e6)
    assert made == ["kept"]
