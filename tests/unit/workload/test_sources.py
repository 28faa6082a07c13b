from itertools import pairwise

import numpy as np
import pytest

from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.sources import load_arrivals
from perllm_lab.workload.synthetic import LAWS, generate_arrivals
from perllm_lab.workload.trace import TraceError

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n2023-11-16 18:15:50,396,109\n"


def test_a_file_is_read_up_to_the_count(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    rng = np.random.default_rng(0)
    assert load_arrivals(str(file), 1, rng) == [Arrival(0.0, 374, 44)]
    assert load_arrivals(str(file), None, rng) == [Arrival(0.0, 374, 44), Arrival(4.0, 396, 109)]


def test_the_synthetic_conversation_is_the_one_the_lab_replays():
    assert load_arrivals("synthetic:conversation", 50, np.random.default_rng(1)) == generate_arrivals(
        50, np.random.default_rng(1)
    )


def test_a_synthetic_trace_without_a_count_is_as_long_as_the_azure_trace():
    assert len(load_arrivals("synthetic:short", None, np.random.default_rng(1))) == 19_366


@pytest.mark.parametrize("name", LAWS)
def test_every_synthetic_trace_is_ordered_from_0_s_on_and_the_same_under_a_seed(name):
    first, second = (load_arrivals(f"synthetic:{name}", 200, np.random.default_rng(4)) for _ in range(2))
    assert first == second
    assert first[0].at_s == 0.0
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(first))


def test_an_unknown_synthetic_trace_lists_the_known_ones():
    with pytest.raises(TraceError, match="no synthetic trace 'poem'; known: synthetic:bursty, synthetic:code"):
        load_arrivals("synthetic:poem", 10, np.random.default_rng(1))


def test_a_missing_file_is_refused_by_name():
    with pytest.raises(TraceError, match=r"nowhere\.csv"):
        load_arrivals("nowhere.csv", 10, np.random.default_rng(1))


def test_joined_traces_are_services_of_the_same_rate_over_the_same_time():
    mixed = load_arrivals("synthetic:conversation+synthetic:code", 400, np.random.default_rng(1))
    times = {name: [one.at_s for one in mixed if one.service == name] for name in ("conversation", "code")}
    assert [len(times[name]) for name in times] == [200, 200]
    assert times["code"][-1] == pytest.approx(times["conversation"][-1])
    assert [one.at_s for one in mixed] == sorted(one.at_s for one in mixed)


def test_joined_files_of_unequal_length_keep_the_same_rate_until_the_end(tmp_path):
    for name, rows in (("long", 60), ("brief", 20)):
        lines = [f"2023-11-16 18:{minute:02}:00,374,44\n" for minute in range(rows)]
        (tmp_path / f"{name}.csv").write_text(TRACE.splitlines(keepends=True)[0] + "".join(lines))
    mixed = load_arrivals(f"{tmp_path}/long.csv+{tmp_path}/brief.csv", None, np.random.default_rng(1))
    late = [one.service for one in mixed[len(mixed) // 2 :]]
    assert (late.count("long"), late.count("brief")) == (10, 10)


def test_a_file_may_have_a_plus_in_its_name(tmp_path):
    file = tmp_path / "night+day.csv"
    file.write_text(TRACE)
    assert len(load_arrivals(str(file), None, np.random.default_rng(1))) == 2
