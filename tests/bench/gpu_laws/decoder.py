"""A decoder in the shape of Llama 3 with random weights: what it computes is meaningless, how long it takes is not."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.gpu_laws.shapes import Shape

ROPE_THETA = 500_000.0
NORM_EPSILON = 1e-5
WEIGHT_DEVIATION = 0.02


Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From the number of a layer, and queries, keys and values, each (tokens, heads, head size), to (tokens, hidden)."""


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    feed_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Decoder:
    """The weights.

    Args:
        shape: Of the model.
        device: Where they are.
        seed: Of the random numbers.
    """

    def __init__(self, shape: Shape, *, device: str = "cuda", seed: int = 0) -> None:
        self.shape = shape
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        wide = shape.heads * shape.head_size
        self.embedding = self.draw(shape.vocabulary, shape.hidden, deviation=1.0)
        self.layers = [
            _Layer(
                self._ones(),
                self.draw(wide + 2 * shape.kv_heads * shape.head_size, shape.hidden),
                self.draw(shape.hidden, wide),
                self._ones(),
                self.draw(2 * shape.feed_forward, shape.hidden),
                self.draw(shape.hidden, shape.feed_forward),
            )
            for _ in range(shape.layers)
        ]
        self.norm = self._ones()
        self.head = self.draw(shape.vocabulary, shape.hidden)

    def draw(self, *size: int, deviation: float = WEIGHT_DEVIATION) -> Tensor:
        """Return random bf16 numbers: zeros would draw less power than real ones do."""
        empty = torch.empty(size, dtype=torch.bfloat16, device=self.device)
        return empty.normal_(std=deviation, generator=self._generator)

    def draw_tokens(self, count: int) -> Tensor:
        """Return random tokens."""
        return torch.randint(self.shape.vocabulary, (count,), device=self.device, generator=self._generator)

    def compute(self, tokens: Tensor, rotation: "Rotation", attend: Attend) -> Tensor:
        """Return what the layers make of tokens, shape (tokens, hidden).

        Args:
            tokens: Shape (tokens,).
            rotation: By their places.
            attend: Stores keys and values, and attends.
        """
        shape = self.shape
        turned = shape.heads + shape.kv_heads
        x = functional.embedding(tokens, self.embedding)
        for number, layer in enumerate(self.layers):
            qkv = functional.linear(_normalize(x, layer.attention_norm), layer.qkv)
            by_head = qkv.view(-1, turned + shape.kv_heads, shape.head_size)
            queries, keys = rotation.turn(by_head[:, :turned]).split([shape.heads, shape.kv_heads], dim=1)
            x.addmm_(attend(number, queries, keys, by_head[:, turned:]), layer.out.T)
            gate, up = functional.linear(_normalize(x, layer.feed_norm), layer.gate_up).chunk(2, dim=-1)
            x.addmm_(functional.silu(gate).mul_(up), layer.down.T)
        return x

    def find_logits(self, x: Tensor) -> Tensor:
        """Return the logits of what `compute` returned, or some rows of it."""
        return functional.linear(_normalize(x, self.norm), self.head)

    def _ones(self) -> Tensor:
        return torch.ones(self.shape.hidden, dtype=torch.bfloat16, device=self.device)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines, each (tokens, 1, head size); the first half of the sines has the sign of the rotation."""

    cosines: Tensor
    sines: Tensor

    @classmethod
    def build(cls, places: Tensor, size: int) -> "Rotation":
        """Return the rotation of tokens at these places of their context."""
        frequencies = ROPE_THETA ** -(torch.arange(0, size, 2, device=places.device) / size)
        angles = places[:, None, None] * frequencies
        cosines, sines = angles.cos(), angles.sin()
        return cls(torch.cat([cosines, cosines], -1).bfloat16(), torch.cat([-sines, sines], -1).bfloat16())

    def __getitem__(self, chosen: slice | Tensor) -> "Rotation":
        return Rotation(self.cosines[chosen], self.sines[chosen])

    def turn(self, x: Tensor) -> Tensor:
        """Return heads of tokens, turned by their places."""
        return torch.addcmul(x * self.cosines, x.roll(x.shape[-1] // 2, dims=-1), self.sines)


class Pass:
    """One pass through the model: some tasks gain a token each, and a prompt is read, either of them possibly none.

    The tasks keep their context: a pass overwrites the last place of the cache, so that a thousand passes measure
    one length.

    Args:
        decoder: The weights.
        tasks: That gain a token.
        context: Tokens that each of them attends to, the new one included.
        prompt: Tokens of the prompt.
    """

    def __init__(self, decoder: Decoder, *, tasks: int = 0, context: int = 1, prompt: int = 0) -> None:
        shape = decoder.shape
        self._decoder, self._tasks = decoder, tasks
        self.tokens = decoder.draw_tokens(tasks)
        self.prompt = decoder.draw_tokens(prompt)
        cache = (shape.layers, 2, tasks, shape.kv_heads, context, shape.head_size)
        self.cache = decoder.draw(*cache, deviation=1.0)
        self.read_cache = decoder.draw(shape.layers, 2, prompt, shape.kv_heads, shape.head_size)
        positions = torch.cat([torch.full((tasks,), context - 1), torch.arange(prompt)]).to(decoder.device)
        self._rotation = Rotation.build(positions, shape.head_size)

    def run(self) -> Tensor:
        """Return the logits of the tasks and, last, of the prompt; the tasks go on with the likeliest tokens."""
        with torch.no_grad():
            return self._compute()

    def _compute(self) -> Tensor:
        decoder, tasks = self._decoder, self._tasks
        x = decoder.compute(torch.cat([self.tokens, self.prompt]), self._rotation, self._attend)
        logits = decoder.find_logits(torch.cat([x[:tasks], x[-1:]]) if self.prompt.numel() else x)
        self.tokens.copy_(logits[:tasks].argmax(dim=-1))
        return logits

    def capture(self) -> Callable[[], None]:
        """Return what launches the pass as one CUDA graph, without the time that Python takes to launch each kernel."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.run()
        self._graph = graph
        return self._replay

    def _replay(self) -> None:
        # A method of the pass, so that what launches the graph keeps its tensors alive.
        self._graph.replay()

    def _attend(self, number: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        tasks = self._tasks
        parts = []
        if tasks:
            cache = self.cache[number]
            cache[0, :, :, -1], cache[1, :, :, -1] = keys[:tasks], values[:tasks]
            answer = attend(queries[:tasks, :, None], cache[0], cache[1])
            parts.append(answer.reshape(tasks, -1))
        if self.prompt.numel():
            self.read_cache[number, 0], self.read_cache[number, 1] = keys[tasks:], values[tasks:]
            parts.append(attend_causally(queries[tasks:], keys[tasks:], values[tasks:]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False) -> Tensor:
    """Return what queries attend to; all of shape (tasks, heads, tokens, head size)."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return functional.scaled_dot_product_attention(queries, keys, values, is_causal=is_causal, enable_gqa=True)


def attend_causally(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what the tokens of a prompt attend to, shape (tokens, hidden); all of shape (tokens, heads, head size)."""
    answer = attend(*(one.transpose(0, 1)[None] for one in (queries, keys, values)), is_causal=True)
    return answer[0].transpose(0, 1).reshape(len(queries), -1)


def _normalize(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, NORM_EPSILON)
