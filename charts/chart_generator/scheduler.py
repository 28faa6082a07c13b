"""The section of the chart's values about the private kube-scheduler, which is in the operator's pod."""

from pydantic import Field

from chart_generator.sections import Image, Object, Port, Probes, Section, Strings


class SchedulerImage(Image):
    """The image of kube-scheduler."""

    repository: str = Field(
        default="registry.k8s.io/kube-scheduler", min_length=1, description="Registry and name of the image."
    )
    tag: str = Field(
        default="",
        description="Tag; the version of the cluster when empty. One minor version older than the cluster is allowed.",
    )


class SchedulerServiceAccount(Section):
    """The service account of kube-scheduler."""

    create: bool = Field(
        default=True,
        description="Whether kube-scheduler gets an account of its own, so that the operator has none of its rights. A "
        "pod has only one account, so the token of the second comes from a Secret and does not expire. When false, the "
        "operator's account, whose tokens do expire, has the rights of both.",
    )
    annotations: Strings = Field(default={}, description="Its annotations.")


class SchedulerValues(Section):
    """The private kube-scheduler in the operator's pod. It serves pods whose schedulerName is config.scheduler_name."""

    image: SchedulerImage = Field(default=SchedulerImage(), description="Its image.")
    service_account: SchedulerServiceAccount = Field(default=SchedulerServiceAccount(), description="Its account.")
    port: Port = Field(default=10259, description="HTTPS port of its probes and metrics.")
    resources: Object = Field(
        default={"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        description="Its resources.",
    )
    probes: Probes = Field(
        default=Probes(), description="Its probes, but for what they request; one that is null is left out."
    )
    extra_args: list[str] = Field(default=[], description="Additional arguments, such as --v=2.")
    extra_env: list[Object] = Field(default=[], description="Additional environment variables.")
