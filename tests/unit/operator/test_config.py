from dataclasses import fields
from math import inf
from pathlib import Path

import pytest
from pydantic import BaseModel

from perllm.api.task import Tier
from perllm.config import Config, load_config
from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from perllm.settings_file import ConfigError
from unit.policy.arms import make_feedback


def write(directory: Path, text: str) -> Path:
    file = directory / "perllm.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", ["", "# nothing set\n", "{}"])
def test_without_settings_all_defaults_hold(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text)) == load_config(None) == Config()


def test_the_defaults_of_a_policy_are_its_own() -> None:
    assert (Config().policy.cs_ucb, Config().policy.cs_ucb_table) == (CsUcbParameters(), CsUcbTableParameters())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{}", CsUcb),
        ("{name: cs-ucb}", CsUcb),
        ("{name: net-hits}", CsUcb),
        ("{name: cs-ucb-table}", CsUcbTable),
    ],
)
def test_the_policy_is_chosen_by_name(tmp_path: Path, text: str, kind: type[Policy]) -> None:
    assert isinstance(load_config(write(tmp_path, f"policy: {text}")).policy.build(), kind)


def test_a_policy_is_built_with_its_parameters(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "policy: {name: cs-ucb-table, cs_ucb_table: {constraint_weight: 0}}"))
    policy = config.policy.build()
    policy.learn_miss("m", 0, 100)
    assert policy.export_state("m", 0)["meanReward"] == -1.0


@pytest.mark.parametrize("section", ["{exploration: 0.7, penalty_weight: 1}", "{cs_ucb: {exploration: 0.7}}"])
def test_parameters_that_have_moved_say_where_they_are(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigError, match=r"exploration.* must be in the section policy\.cs_ucb_table"):
        load_config(write(tmp_path, f"policy: {section}"))


def test_the_former_name_of_a_section_is_accepted_with_advice(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "policy: {name: net-hits, net_hits: {price: 5}}"))
    assert config.policy.build().learn(make_feedback(0, energy_j=10.0)) == pytest.approx(1 - 1 / 5)
    assert [advice for _, advice in config.deprecations] == ["rename it", "rename it"]


def test_the_former_setting_of_a_single_resource_replaces_the_list(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "nodes: {gpu_resource: perllm.io/slot}"))
    assert config.nodes.to_labels().gpu_resources == ("perllm.io/slot",)
    assert [advice for _, advice in config.deprecations] == ["list it there"]


def test_a_setting_replaces_its_default_only(tmp_path: Path) -> None:
    text = "policy: {cs_ucb_table: {exploration: 0.7}}\nnamespaces: [a, b]\nlog: {format: json}\n"
    config = load_config(write(tmp_path, text))
    assert (config.policy.cs_ucb_table.exploration, config.namespaces, config.log.format) == (0.7, ("a", "b"), "json")
    assert config.policy.cs_ucb_table.penalty_weight == CsUcbTableParameters().penalty_weight


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("polcy: {}", "polcy: there is no such setting; is policy meant?"),
        ("colour: red", "colour: there is no such setting\n"),
        ("telemetry: {stale_after: 9}", "telemetry.stale_after: there is no such setting; is stale_after_s meant?"),
        ("telemetry: {meters: [{name: a, powr: b}]}", "telemetry.meters.0.powr: there is no such setting; is power"),
        ("policy: {net_hits: {prise: 1}}", "policy.net_hits.prise: there is no such setting; is price meant?"),
        ("telemetry: {stale_after_s: .inf}", "telemetry.stale_after_s"),
        ("telemetry: {queries: {power_unit_w: .nan}}", "telemetry.queries.power_unit_w"),
        ("energy_patience_s: .inf", "energy_patience_s"),
        ("policy: {name: best}", "policy.name"),
        ("policy: {cs_ucb_table: {exploration: -1}}", "policy.cs_ucb_table: Value error, exploration must be"),
        ("policy: {cs_ucb: {floor: .nan}}", "policy.cs_ucb: Value error, floor must be"),
        ("policy: {cs_ucb_table: {exploration: much}}", "policy.cs_ucb_table.exploration"),
        ("policy: {cs_ucb: {prise: 1}}", "policy.cs_ucb.prise: there is no such setting; is price meant?"),
        ("server: {extender_port: 70000}", "server.extender_port"),
        ("log: {level: LOUD}", "log.level"),
        ("telemetry: {url: prometheus:9090}", "telemetry.url"),
        ("nodes: {default_bandwidth_mbit_s: {edge: 50}}", "nodes.default_bandwidth_mbit_s"),
        ("nodes: {default_bandwidth_mbit_s: {edge: 50, cloud: 0}}", "nodes.default_bandwidth_mbit_s.cloud"),
        ("nodes: {default_bandwidth_mbit_s: {edge: 50, cloud: 9, fog: 1}}", "nodes.default_bandwidth_mbit_s.fog"),
        ("namespaces: [a, b, a]", "namespaces: Value error, must have each name only once"),
        ("namespaces: ['*']", "namespaces.0"),
        ("instance: North.1", "instance"),
        ("leader_lease: a/b", "leader_lease"),
        ("scheduler_name: ''", "scheduler_name"),
        ("tasks: {default_ttl: soon}", "tasks.default_ttl"),
        ("tasks: {default_ttl: 721h}", "tasks.default_ttl: Value error, must be at most 720h, or never"),
        ("tasks: {history_limit: 0}", "tasks.history_limit"),
        ("runner: {server_url: 'http://h/v1'}", "runner: Value error, image must be set with server_url"),
        ("runner: {server_url: 'http://me:secret@h/v1', image: i}", "runner.server_url"),
        ("[1, 2]", "file"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=r"perllm\.yaml is wrong:\n") as caught:
        load_config(write(tmp_path, text))
    assert f"  {field}" in f"{caught.value}\n"


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)extender_port.*colour|colour.*extender_port"):
        load_config(write(tmp_path, "colour: red\nserver: {extender_port: -1}\n"))


def test_a_file_or_a_resource_with_an_empty_name_is_none(tmp_path: Path) -> None:
    text = "telemetry: {token_file: '', password_file: '', ca_file: ''}\nnodes: {gpu_resource: ''}\n"
    assert load_config(write(tmp_path, text)) == Config()


@pytest.mark.parametrize("content", [None, b"a: [", b"\xff\xfe\x00", b"a: 2024-02-30"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "perllm.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"perllm\.yaml cannot be read"):
        load_config(file)


def test_a_setting_that_is_given_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"perllm\.yaml cannot be read: line 3: 'tasks' is given twice, first in line 1"
    ):
        load_config(write(tmp_path, "tasks: {history_limit: 7}\nserver: {}\ntasks: {default_ttl: 1h}\n"))


@pytest.mark.parametrize(
    ("text", "ttl_s", "history"),
    [("{}", 86400.0, 5000), ("{default_ttl: 90m, history_limit: 7}", 5400.0, 7), ("{default_ttl: never}", inf, 5000)],
)
def test_finished_tasks_are_kept_for_a_time_and_in_a_number(
    tmp_path: Path, text: str, ttl_s: float, history: int
) -> None:
    tasks = load_config(write(tmp_path, f"tasks: {text}")).tasks
    assert (tasks.default_ttl_s, tasks.max_history) == (ttl_s, history)


def test_any_number_of_finished_tasks_can_be_kept(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "tasks: {history_limit: unlimited}")).tasks.max_history is None


def test_every_tier_has_its_defaults() -> None:
    nodes = Config().nodes
    assert set(nodes.default_bandwidth_mbit_s) == set(nodes.transmission_microjoule_per_bit) == set(Tier)


def test_every_field_explains_itself() -> None:
    def undocumented(model: type[BaseModel]) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += [f"{name}.{inner}" for inner in undocumented(field.annotation)]
        return found

    assert undocumented(Config) == []


@pytest.mark.parametrize("parameters", [CsUcbParameters, CsUcbTableParameters])
def test_every_parameter_of_a_policy_explains_itself(parameters: type) -> None:
    assert [one.name for one in fields(parameters) if f"\n        {one.name}: " not in (parameters.__doc__ or "")] == []
