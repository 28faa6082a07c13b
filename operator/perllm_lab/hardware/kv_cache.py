"""How long it takes to read the keys and values of a token of context, once per iteration for every decoding task.

    seconds = bytes of a token / (share of the memory's bandwidth that is reached x bandwidth)
    bytes   = 2 (key and value) x layers x heads of keys x size of a head x 2 (16 bit)

On an H100 (3.35 TB/s) and the shape of Llama 3.1 8B 51 ns were measured (docs/measured-gpu.md), which is 77 % of the
bandwidth. That the other types reach the same share of theirs is an assumption.
"""

REACHED = 0.77

LLAMA_3_8B_BYTES = 2 * 32 * 8 * 128 * 2
LLAMA_2_7B_BYTES = 2 * 32 * 32 * 128 * 2
QWEN_3_32B_BYTES = 2 * 64 * 8 * 128 * 2

SERVED_TOKENS = 1235.0
"""Context of the published laws of vLLM under load: that at which the slope of the H100's is the measured one, 13 us
and 51 ns per token of context."""

SINGLE_TOKENS = 300.0
"""Context of the sources that measured one task: they read 256 tokens and write some tens."""


def find_token_s(token_bytes: int, memory_gb_per_s: float) -> float:
    """Return the seconds that a token of context adds to an iteration."""
    return token_bytes / (REACHED * memory_gb_per_s * 1e9)
