"""What the operator makes of nodes."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials
from perllm.config import Config
from perllm.controller.dispatcher import Dispatcher
from perllm.operator import Operator

NOBODY = Credentials("http://127.0.0.1:9", None, None, None, lambda: None)


async def test_news_of_nodes_without_gpus_makes_nobody_look_at_all_waiting_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewals: list[Dispatcher] = []
    monkeypatch.setattr(Dispatcher, "renew", lambda dispatcher: renewals.append(dispatcher))
    async with Client(NOBODY) as client:
        operator = Operator(Config(), client, NOBODY, CollectorRegistry())
        plain: dict[str, Any] = {"metadata": {"name": "plain", "uid": "u"}, "spec": {}, "status": {}}
        operator.on_node(None, plain)
        operator.on_node(plain, None)
    assert renewals == []
