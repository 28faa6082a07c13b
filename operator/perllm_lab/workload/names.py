"""Names shared by the pods and the simulated nodes of the lab; PerLLM never reads them."""

PROMPT_TOKENS_ANNOTATION = "lab.perllm.io/prompt-tokens"
OUTPUT_TOKENS_ANNOTATION = "lab.perllm.io/output-tokens"
INPUT_BYTES_ANNOTATION = "lab.perllm.io/input-bytes"
FAIL_ANNOTATION = "lab.perllm.io/fail"
MESSAGE_ANNOTATION = "lab.perllm.io/message"

CONTAINER = "llm"
IMAGE = "perllm-lab/llm"
