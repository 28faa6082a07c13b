import json

import numpy as np
import pytest

from perllm.learning.lengths import LengthLaw
from perllm.learning.services import MAX_GROUPS, MAX_STORED, ServiceOffsets

TOKENS = {"shop/search": 20.0, "shop/chat": 300.0, "lab/essay": 900.0}


def teach(law: LengthLaw, count: int, services: dict[str, str] | None = None) -> LengthLaw:
    """Let services answer with a log-spread of 0.3 each, under the names that `services` gives them."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        for service, tokens in TOKENS.items():
            name = service if services is None else services[service]
            law.learn(1000, None, tokens * float(np.exp(rng.normal(0.0, 0.3))), name)
    return law


def median(law: LengthLaw, service: str) -> float:
    return float(np.exp(law.predict(1000, None, service).centre))


def test_each_service_is_expected_to_answer_as_it_does() -> None:
    law = teach(LengthLaw(), 100)
    assert {service: median(law, service) for service in TOKENS} == pytest.approx(TOKENS, rel=0.2)
    assert all(law.predict(1000, None, service).spread < 0.5 for service in TOKENS)


def test_unknown_services_are_expected_to_answer_like_their_namespace_and_then_like_their_model() -> None:
    law = teach(LengthLaw(), 100)
    assert median(law, "lab/new") == pytest.approx(900.0, rel=0.3)
    assert 20.0 < median(law, "shop/new") < 300.0
    assert median(law, "new/new") == median(law, "")
    assert law.predict(1000, None, "new/new").spread > 1.0


def test_a_few_answers_say_something_and_not_everything() -> None:
    law = teach(LengthLaw(), 100)
    before = median(law, "new/one")
    law.learn(1000, None, 900.0, "new/one")
    assert before < median(law, "new/one") < 600.0


def test_namespaces_alone_serve_where_no_service_is_named() -> None:
    names = {service: service.partition("/")[0] for service in TOKENS}
    law = teach(LengthLaw(), 100, names)
    assert median(law, "lab") == pytest.approx(900.0, rel=0.2)


def test_hints_that_a_service_always_quadruples_are_seen_through() -> None:
    law, rng = LengthLaw(), np.random.default_rng(1)
    for _ in range(300):
        tokens = float(np.exp(rng.normal(5.0, 0.8)))
        law.learn(1000, tokens, tokens, "a/honest")
        law.learn(1000, 4.0 * tokens, tokens, "a/boastful")
    expected = [float(np.exp(law.predict(1000, 400.0, name).centre)) for name in ("a/honest", "a/boastful")]
    assert expected == pytest.approx([400.0, 100.0], rel=0.2)


def test_what_is_known_survives_json() -> None:
    old, new = teach(LengthLaw(), 50), LengthLaw()
    new.import_better(json.loads(json.dumps(old.export_state())))
    assert {service: median(new, service) for service in TOKENS} == pytest.approx(
        {service: median(old, service) for service in TOKENS}
    )


def test_what_is_known_of_a_service_whose_every_run_is_ended_can_be_taken_back() -> None:
    law = LengthLaw()
    longest = np.zeros(len(law.possible(1000, None)[1]))
    longest[-1] = 1.0
    for _ in range(300):
        law.learn_ended(1000, None, longest, "shop/chat")
    LengthLaw().import_better(json.loads(json.dumps(law.export_state())))


@pytest.mark.parametrize("sums", [[-1.0, 0.0, 1.0], [1e9, 0.0, 1.0], [1.0, 5.0, 1.0], [1.0, 0.0, 1e9], [1.0, 1.0]])
def test_a_state_that_cannot_have_been_learned_is_refused(sums: list[float]) -> None:
    state = teach(LengthLaw(), 5).export_state()
    assert state[0] is not None
    with pytest.raises(ValueError):  # noqa: PT011
        LengthLaw().import_better([{**state[0], "services": {"a/b": sums}}, None])


def test_only_the_latest_are_remembered_and_fewer_stored() -> None:
    offsets = ServiceOffsets()
    for number in range(10 * MAX_GROUPS):
        offsets.add(f"n/{number}", 1.0, 1.0)
    assert offsets.find("n/0", 1.0) == offsets.find("n", 1.0)
    assert offsets.find(f"n/{10 * MAX_GROUPS - 1}", 1.0)[0] > offsets.find("n", 1.0)[0] * 0.99
    assert len(offsets.export_state()) == MAX_STORED


def test_a_namespace_with_ever_new_services_pushes_out_its_own_only() -> None:
    offsets = ServiceOffsets()
    offsets.add("calm/chat", 1.0, 1.0)
    known = offsets.find("calm/chat", 0.5)
    for number in range(3 * MAX_GROUPS):
        offsets.add(f"busy/{number}", -1.0, 1.0)
    assert offsets.find("calm/chat", 0.5) == known
    assert offsets.find("busy/new", 0.5) == offsets.find("busy", 0.5) != offsets.find("other", 0.5)
