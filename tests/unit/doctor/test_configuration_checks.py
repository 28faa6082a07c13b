from perllm.config import Config
from perllm.doctor.configuration import check_configuration
from perllm.doctor.finding import Level


def test_a_deprecated_setting_is_a_warning_with_what_to_do() -> None:
    config = Config.model_validate({"policy": {"name": "net-hits"}})
    (finding,) = check_configuration(config)
    assert finding.level is Level.WARN
    assert (finding.message, finding.advice) == (
        "config.policy.name is net-hits, which is called cs-ucb now",
        "rename it",
    )


def test_the_defaults_are_not_deprecated() -> None:
    (finding,) = check_configuration(Config())
    assert finding.level is Level.OK
