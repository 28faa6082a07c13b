"""What the operator would not start with is rejected by Helm, before it replaces an operator that runs."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import AfterValidator, BaseModel, ValidationError

from integration.chart.helm import CHART, Helm, Object
from perllm.config import Config

LOGIN = {"username": "perllm", "password_file": "/etc/perllm-prometheus/password"}
METER = {"name": "a", "energy": "a[{window}]"}
TARIFF = {"per_kwh": 0.3}
PERIOD = {"from_hour": 0, "to_hour": 6, "per_kwh": 0.1}

RULES: dict[str, list[tuple[Object, str]]] = {
    "TelemetrySettings._check_authentication": [
        ({"telemetry": {"username": "perllm"}}, "password_file must be set together"),
        ({"telemetry": {"password_file": LOGIN["password_file"]}}, "password_file must be set together"),
        (
            {"telemetry": {**LOGIN, "token_file": "/token"}},
            "must have either token_file, or username and",
        ),
    ],
    "MeterSettings._check_queries": [
        ({"telemetry": {"meters": [METER, {"name": "b"}]}}, "config.telemetry.meters[1] must have a query for energy"),
    ],
    "_check_names": [({"telemetry": {"meters": [METER, METER]}}, "each name only once, and they are a, a")],
    "_check_url": [
        ({"telemetry": {"url": "http://"}}, "at '/config/telemetry/url'"),
        ({"telemetry": {"url": "http://perllm:a/b@prometheus:9090"}}, "at '/config/telemetry/url'"),
    ],
    "_check_window": [({"telemetry": {"queries": {"power": "power"}}}, "at '/config/telemetry/queries/power'")],
    "CostSettings._check_weights": [
        ({"costs": {"weights": {"energy": 0}}}, "one of config.costs.weights.energy, money and carbon must be above 0"),
        ({"costs": {"weights": {"carbon": 1}}}, "config.costs.weights.carbon needs config.costs.carbon"),
    ],
    "TariffSettings._check_one_source": [
        (
            {"costs": {"money": [{**TARIFF, "query": "price", "periods": [PERIOD]}]}},
            "config.costs.money[0] must have either periods or a query",
        ),
    ],
    "_check_last": [
        (
            {"costs": {"carbon": [TARIFF, {**TARIFF, "tiers": ["edge"]}]}},
            "the last tariff of config.costs.carbon must",
        ),
    ],
    "ShadowSettings._check_model": [
        ({"shadow": {"match_labels": {"app": "llm"}}}, "config.shadow.model must be set with"),
    ],
    "_check_deadline": [({"shadow": {"deadline": "25h"}}, "config.shadow.deadline must be at least 1s and")],
    "_check_ttl": [({"tasks": {"default_ttl": "721h"}}, "config.tasks.default_ttl must be at most 720h, or never")],
    "_check_parameters": [({"policy": {"cs_ucb": {"price": -1}}}, "at '/config/policy/cs_ucb/price'")],
    "PolicySettings._reject_moved": [({"policy": {"exploration": 1}}, "'exploration' not allowed")],
    "check_unique": [({"namespaces": ["a", "a"]}, "at '/config/namespaces'")],
}

UNCHECKED = {
    "_check_time_zone": "Helm knows no time zones",
    "_check_every_tier": "Helm keeps the default of a tier that is not set",
    "RunnerSettings._check_image": "the chart sets it",
}

VALID: list[Object] = [
    {"telemetry": LOGIN},
    {"telemetry": {"token_file": "/token", "url": "https://perllm:a%2Fb@[fd00::1]:9090/prefix?tenant=a"}},
    *(
        {"telemetry": {"url": f"http://{place}"}}
        for place in ("a:b@c@prometheus", "10.0.0.1:", "[fe80::1%25eth0]:9090")
    ),
    {"telemetry": {"meters": [METER, {**METER, "name": "b"}]}},
    {"costs": {"weights": {"energy": 0, "money": 1}, "money": [{**TARIFF, "tiers": ["edge"]}, TARIFF]}},
    {"costs": {"carbon": [{**TARIFF, "query": "grams"}], "money": [{**TARIFF, "periods": [PERIOD]}]}},
    {"shadow": {"match_labels": {"app": "llm"}, "model": "m", "deadline": "24h"}},
    {"tasks": {"default_ttl": "720h"}},
    {"tasks": {"default_ttl": "never"}},
]


def list_rules(kind: Any) -> Iterator[str]:
    """List the functions by which the operator checks its configuration, apart from what a schema can say."""
    if isinstance(kind, AfterValidator):
        yield kind.func.__name__
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from (f"{kind.__name__}.{name}" for name in kind.__pydantic_decorators__.model_validators)
        for field in kind.model_fields.values():
            for part in (field.annotation, *field.metadata):
                yield from list_rules(part)
    else:
        for part in get_args(kind):
            yield from list_rules(part)


def test_every_rule_of_the_operator_is_known_here() -> None:
    assert set(list_rules(Config)) == RULES.keys() | UNCHECKED.keys()


@pytest.mark.parametrize(
    ("config", "message"), [example for examples in RULES.values() for example in examples], ids=str
)
def test_what_breaks_a_rule_is_rejected(config: Object, message: str, helm: Helm) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(config)

    assert message in helm.fail("template", "perllm", str(CHART), "--kube-version=1.37.2", values={"config": config})


@pytest.mark.parametrize("config", VALID, ids=str)
def test_what_breaks_none_is_accepted(config: Object, helm: Helm) -> None:
    Config.model_validate(config)

    helm.render({"config": config})
