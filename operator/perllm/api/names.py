"""Every name that clusters, charts and workloads depend on: groups, labels, annotations and API paths."""

import hashlib
import re

GROUP = "perllm.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

TASK_KIND = "LLMInferenceTask"
TASK_PLURAL = "llminferencetasks"
TASK_SHORT_NAME = "llmtask"
NODE_PROFILE_KIND = "LLMNodeProfile"
NODE_PROFILE_PLURAL = "llmnodeprofiles"
NODE_PROFILE_SHORT_NAME = "llmnode"
NODE_SERVER_KIND = "LLMNodeServer"
NODE_SERVER_PLURAL = "llmnodeservers"
NODE_SERVER_SHORT_NAME = "llmserver"
TASK_ANSWER_KIND = "LLMTaskAnswer"
TASK_ANSWER_PLURAL = "llmtaskanswers"
TASK_ANSWER_SHORT_NAME = "llmanswer"
CATEGORY = "perllm"

SCHEDULER_NAME = "perllm"

TASK_LABEL = f"{GROUP}/task"
MODEL_LABEL = f"{GROUP}/model"
ATTEMPT_LABEL = f"{GROUP}/attempt"
TIER_LABEL = f"{GROUP}/tier"
BATCH_LABEL = f"{GROUP}/batch"
INSTANCE_LABEL = f"{GROUP}/instance"
GPU_TYPE_LABEL = "nvidia.com/gpu.product"
VENDOR_TYPE_LABELS = ("amd.com/gpu.product-name", "gpu.intel.com/product")
"""Labels that hold the GPU type where GPUs are not NVIDIA's."""
GPU_COUNT_LABEL = "nvidia.com/gpu.count"
SLOTS_LABEL = f"{GROUP}/slots"

MODEL_ANNOTATION = f"{GROUP}/model"
PROMPT_TOKENS_ANNOTATION = f"{GROUP}/prompt-tokens"
OUTPUT_TOKENS_ANNOTATION = f"{GROUP}/output-tokens"
INPUT_BYTES_ANNOTATION = f"{GROUP}/input-bytes"
TIERS_ANNOTATION = f"{GROUP}/tiers"
DECISION_ANNOTATION = f"{GROUP}/decision"
DEADLINE_ANNOTATION = f"{GROUP}/deadline"
CONTAINERS_ANNOTATION = f"{GROUP}/containers"
NAMED_NODES_ANNOTATION = f"{GROUP}/named-nodes"
LATENCY_ANNOTATION = f"{GROUP}/latency-seconds"
ENERGY_ANNOTATION = f"{GROUP}/energy-joules"
ENERGY_QUALITY_ANNOTATION = f"{GROUP}/energy-quality"
DEADLINE_MET_ANNOTATION = f"{GROUP}/deadline-met"
RESULT_ANNOTATIONS = (LATENCY_ANNOTATION, ENERGY_ANNOTATION, ENERGY_QUALITY_ANNOTATION, DEADLINE_MET_ANNOTATION)
"""What an annotated pod took, if that is configured."""

RETRY_LABEL = f"{GROUP}/retry"
"""When PerLLM last had kube-scheduler retry a pod, in Unix seconds: a change of a pod's labels makes it do so."""

FIELD_MANAGER = "perllm"
AGENT_FIELD_MANAGER = "perllm-agent"
AGENT_LEASE_PREFIX = "perllm-agent-"
SERVER_LABEL = f"{GROUP}/server"
SERVER_PORT_ANNOTATION = f"{GROUP}/server-port"

OUTCOME_FINALIZER = f"{GROUP}/outcome"

GPU_RESOURCE = "nvidia.com/gpu"
MIG_RESOURCES = "nvidia.com/mig-*"
GPU_RESOURCES = (
    GPU_RESOURCE,
    "nvidia.com/gpu.shared",
    MIG_RESOURCES,
    "amd.com/gpu",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
)
"""Resources of the usual device plugins; * stands for any characters."""
TAINT_KEYS = (GPU_RESOURCE, "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", SLOTS_LABEL)
"""Keys of the taints that keep other pods off such nodes; the programs of each vendor tolerate its own."""
DEVICE_RESOURCES = (MIG_RESOURCES, "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe")
"""Those of which each unit is a GPU of its own, or a slice that shares nothing but power with others."""

KEEPS_OFF = ("NoSchedule", "NoExecute")
"""Effects of taints by which a pod is not placed on a node, or does not get a device."""

DEVICE_GROUP = "resource.k8s.io"
DEVICE_API = f"{DEVICE_GROUP}/v1"
SLICES_PATH = f"/apis/{DEVICE_API}/resourceslices"
CLAIMS_PATH = f"/apis/{DEVICE_API}/resourceclaims"
CLAIM_TEMPLATES_PATH = f"/apis/{DEVICE_API}/resourceclaimtemplates"

MAX_LABEL_LENGTH = 63
MAX_POD_NAME = 63
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
_HASH_LENGTH = 8


def tasks_path(namespace: str | None = None) -> str:
    """Return the API path of the tasks of one namespace, or of all when it is None."""
    return f"/apis/{API_VERSION}/{_in_namespace(namespace)}{TASK_PLURAL}"


def task_path(namespace: str, name: str) -> str:
    """Return the API path of one task."""
    return f"{tasks_path(namespace)}/{name}"


def task_status_path(namespace: str, name: str) -> str:
    """Return the API path of one task's status."""
    return f"{task_path(namespace, name)}/status"


def task_answers_path(namespace: str) -> str:
    """Return the API path of the answers of tasks of one namespace."""
    return f"/apis/{API_VERSION}/{_in_namespace(namespace)}{TASK_ANSWER_PLURAL}"


def task_answer_path(namespace: str, name: str) -> str:
    """Return the API path of one answer."""
    return f"{task_answers_path(namespace)}/{name}"


def task_answer_name(uid: str, attempt: int, node: str) -> str:
    """Return the name of the answer of an attempt at a task; only the agent of the node may give it.

    Of a uid there is only one, so an answer is never taken for that of an earlier task of the same name. A uid has no
    dots, so it is clear where the node's name begins.
    """
    return f"{uid}-{attempt}.{node}"


def node_profiles_path() -> str:
    """Return the API path of all node profiles."""
    return f"/apis/{API_VERSION}/{NODE_PROFILE_PLURAL}"


def node_profile_path(name: str) -> str:
    """Return the API path of one node's profile."""
    return f"{node_profiles_path()}/{name}"


def node_profile_status_path(name: str) -> str:
    """Return the API path of the status of one node's profile."""
    return f"{node_profile_path(name)}/status"


def node_servers_path() -> str:
    """Return the API path of the model servers of all nodes."""
    return f"/apis/{API_VERSION}/{NODE_SERVER_PLURAL}"


def node_server_path(node: str) -> str:
    """Return the API path of the model servers of one node."""
    return f"{node_servers_path()}/{node}"


def node_server_status_path(node: str) -> str:
    """Return the API path of the status of the model servers of one node."""
    return f"{node_server_path(node)}/status"


def is_task_kind(text: str) -> bool:
    """Whether this is what kubectl calls tasks, such as llmtask or llminferencetasks.perllm.io."""
    kinds = (TASK_PLURAL, TASK_KIND.lower(), TASK_SHORT_NAME, f"{TASK_SHORT_NAME}s")
    return text.lower().partition(".")[0] in kinds


def pods_path(namespace: str | None = None) -> str:
    """Return the API path of the pods of one namespace, or of all when it is None."""
    return f"/api/v1/{_in_namespace(namespace)}pods"


def quotas_path(namespace: str | None = None) -> str:
    """Return the API path of the quotas of one namespace, or of all when it is None."""
    return f"/api/v1/{_in_namespace(namespace)}resourcequotas"


def leases_path(namespace: str) -> str:
    """Return the API path of the leases of one namespace."""
    return f"/apis/coordination.k8s.io/v1/{_in_namespace(namespace)}leases"


def lease_path(namespace: str, name: str) -> str:
    """Return the API path of one lease."""
    return f"{leases_path(namespace)}/{name}"


def select_instance(instance: str) -> str:
    """Return the label selector of an instance's objects; an empty name selects those of the unnamed instance."""
    return f"{INSTANCE_LABEL}={instance}" if instance else f"!{INSTANCE_LABEL}"


def profile_prefix(instance: str) -> str:
    """Return the prefix that an instance puts before the node's name in the names of node profiles."""
    return f"{instance}." if instance else ""


def pod_name(task: str, attempt: int) -> str:
    """Return the name of an attempt's pod. It is deterministic, so an attempt can never run twice.

    Long names are shortened and kept unique by a hash.
    """
    suffix = f"-{attempt}"
    if len(task) + len(suffix) <= MAX_POD_NAME:
        return task + suffix
    suffix = f"-{hashlib.sha256(task.encode()).hexdigest()[:_HASH_LENGTH]}{suffix}"
    return task[: MAX_POD_NAME - len(suffix)].rstrip("-.") + suffix


def to_label_value(text: str) -> str:
    """Return ``text`` as a label value: unchanged if it is a valid one, else shortened and kept unique by a hash.

    Model names such as ``meta-llama/Llama-3.1-8B`` contain characters that labels do not allow.
    """
    if len(text) <= MAX_LABEL_LENGTH and _LABEL_VALUE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[: MAX_LABEL_LENGTH - _HASH_LENGTH - 1].strip("_.-")
    return f"{stem}-{digest}" if stem else digest


def _in_namespace(namespace: str | None) -> str:
    return f"namespaces/{namespace}/" if namespace is not None else ""
