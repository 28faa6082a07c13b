import pytest
from prometheus_client import CollectorRegistry

from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials
from perllm.config import Config
from perllm.wiring import Wiring

NOBODY = Credentials("http://127.0.0.1:9", None, None, None, lambda: None)
TARIFF = {"money": [{"per_kwh": 0.3}]}


@pytest.mark.parametrize(("costs", "are_counted"), [({}, False), (TARIFF, True)])
async def test_costs_are_counted_only_where_there_is_a_tariff(costs: dict[str, object], are_counted: bool) -> None:
    registry = CollectorRegistry()
    async with Client(NOBODY) as client:
        Wiring(Config.model_validate({"costs": costs}), client, NOBODY, registry)
    assert ("perllm_cost_money" in {family.name for family in registry.collect()}) is are_counted
