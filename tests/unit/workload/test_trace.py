import gzip

import pytest

from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.trace import TraceError, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROWS = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:51.2224670,879,55\n"


def write(tmp_path, text):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_arrivals_count_from_the_first_request(tmp_path):
    arrivals = read_trace(write(tmp_path, HEADER + ROWS))
    assert arrivals[0] == Arrival(0.0, 374, 44)
    assert arrivals[1] == Arrival(pytest.approx(4.314579), 396, 109)
    assert len(arrivals) == 3


def test_gzip_is_recognised_by_content_and_the_limit_holds(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(gzip.compress((HEADER + ROWS).encode()))
    assert len(read_trace(path, limit=2)) == 2


def test_requests_out_of_order_are_put_in_order(tmp_path):
    lines = ROWS.splitlines(keepends=True)
    arrivals = read_trace(write(tmp_path, HEADER + lines[2] + lines[0]))
    assert [arrival.prompt_tokens for arrival in arrivals] == [374, 879]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: expected the header TIMESTAMP,ContextTokens,GeneratedTokens, .*; found nothing"),
        (HEADER.replace(",", ";") + ROWS.replace(",", ";"), "found TIMESTAMP;ContextTokens;GeneratedTokens"),
        ("time,in,out\n", "line 1: expected the header"),
        (HEADER, "no requests"),
        (HEADER + ROWS + "2023-11-16 18:15:52,7\n", "line 5: expected 3 fields, found 2"),
        (HEADER + "yesterday,7,7\n", "line 2: TIMESTAMP must look like"),
        (HEADER + "0001-01-01 00:00:00+14:00,7,7\n", "line 2: TIMESTAMP must look like"),
        (HEADER + "2023-11-16 18:15:52,7,7\n8,7,7\n", "line 3: TIMESTAMP must .* or be a number in all, not '8'"),
        (HEADER + "8,7,7\n2023-11-16 18:15:52,7,7\n", "line 3: TIMESTAMP must .*, not '2023-11-16 18:15:52'"),
        (HEADER + "8,7,7\nnan,7,7\n", "line 3: TIMESTAMP must"),
        (HEADER + "2023-11-16 18:15:52,-7,7\n", "line 2: ContextTokens must be a whole number of 1 to .*; it is '-7'"),
        (HEADER + "2023-11-16 18:15:52,7,1e3\n", "line 2: GeneratedTokens must be"),
        (HEADER + "2023-11-16 18:15:52,7,0\n", "line 2: GeneratedTokens .* leave out requests without"),
        (HEADER + "2023-11-16 18:15:52,7,10000001\n", "line 2: GeneratedTokens must be"),
        (HEADER + f"2023-11-16 18:15:52,{'9' * 5000},7\n", "line 2: ContextTokens must be .*; it is '9{99}…'"),
    ],
)
def test_a_wrong_trace_names_the_line(tmp_path, text, complaint):
    with pytest.raises(TraceError, match=complaint):
        read_trace(write(tmp_path, text))


@pytest.mark.parametrize("content", [b"\x1f\x8bbroken", b"\xff\xfe\x00"])
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path, content):
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"trace\.csv: cannot be read"):
        read_trace(path)


def test_a_damaged_archive_is_refused_by_name(tmp_path):
    path = tmp_path / "trace.csv.gz"
    whole = bytearray(gzip.compress((HEADER + ROWS).encode()))
    whole[12:20] = b"\xff" * 8
    path.write_bytes(bytes(whole))
    with pytest.raises(TraceError, match=r"trace\.csv\.gz: cannot be read"):
        read_trace(path)


def test_columns_are_found_by_name_in_any_order(tmp_path):
    text = "Model,generatedtokens,TimeStamp,CONTEXTTOKENS\nm,44,2023-11-16T18:15:46Z,374\n"
    assert read_trace(write(tmp_path, text)) == [Arrival(0.0, 374, 44)]


def test_the_columns_of_burstgpt_are_known_and_times_may_be_numbers(tmp_path):
    header = "\ufeffTimestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n"
    rows = '45.5,ChatGPT,472,18,490,Conversation log\r\n5,GPT-4,1087,230,1317,"API log"\r\n'
    assert read_trace(write(tmp_path, header + rows)) == [Arrival(0.0, 1087, 230), Arrival(40.5, 472, 18)]


def test_times_of_different_zones_are_compared_as_moments(tmp_path):
    night = "2023-10-29 02:30:00+02:00,1,1\n2023-10-29 02:10:00+01:00,2,2\n"
    assert [one.at_s for one in read_trace(write(tmp_path, HEADER + night))] == [0.0, 2400.0]


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(TraceError, match=r"nowhere\.csv"):
        read_trace(tmp_path / "nowhere.csv")


MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46]}\r\n'
)


@pytest.mark.parametrize("text", [MOONCAKE, "\ufeff" + MOONCAKE.replace("}\n", "}\n\n"), " " + MOONCAKE])
def test_traces_in_json_lines_are_read(tmp_path, text):
    assert read_trace(write(tmp_path, text)) == [Arrival(0.0, 6955, 52), Arrival(3053.0, 6472, 26)]


def test_fields_of_json_lines_are_found_like_columns(tmp_path):
    text = '{"GeneratedTokens": "44", "extra": null, "TIMESTAMP": "2023-11-16 18:15:46", "ContextTokens": 374}\n'
    assert read_trace(write(tmp_path, text)) == [Arrival(0.0, 374, 44)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"at": 1}\n', "line 1: expected .* or JSON objects with these; found at"),
        (MOONCAKE + '{"timestamp": 4', "line 3: not valid JSON"),
        (MOONCAKE + "[1, 2, 3]\n", "line 3: expected a JSON object"),
        (MOONCAKE + '{"timestamp": 4, "input_length": 5}\n', "line 3: expected a number or a text as output_length"),
        (MOONCAKE + '{"timestamp": 4, "input_length": null, "output_length": 6}\n', "line 3: .* as input_length"),
        (
            MOONCAKE + '{"timestamp": 4, "input_length": 0, "output_length": 6}\n',
            "line 3: input_length must be a whole",
        ),
        (MOONCAKE + '{"timestamp": 4, "input_length": true, "output_length": 6}\n', "line 3: input_length must be"),
        (
            MOONCAKE + '{"timestamp": "now", "input_length": 5, "output_length": 6}\n',
            "line 3: TIMESTAMP must look like",
        ),
    ],
)
def test_a_wrong_line_of_json_is_named(tmp_path, text, complaint):
    with pytest.raises(TraceError, match=complaint):
        read_trace(write(tmp_path, text))
