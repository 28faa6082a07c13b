"""Passes of a model server: tasks of different contexts share one cache and one pass.

FlashAttention reads the keys and values of each task from where its slot begins, as far as its context goes. So an
iteration is one CUDA graph for each size of a batch, although the tasks and their contexts change.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bench.gpu_laws.decoder import Decoder, Rotation, attend_causally

SIZES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96)
"""Rows of the graphs; a batch takes the next larger one."""

LARGEST_ERROR = 0.02
"""Of the attention in bf16 against the same one task at a time, as a share of its norm."""


class ServedPasses:
    """Passes over a cache in which each task has a slot.

    Args:
        decoder: The weights.
        context: Tokens of a slot.
        sizes: Rows of the graphs; there are as many slots as rows in the largest one.
    """

    def __init__(self, decoder: Decoder, *, context: int, sizes: Sequence[int] = SIZES) -> None:
        shape, most = decoder.shape, max(sizes)
        self._decoder, self._context, self._sizes = decoder, context, sorted(sizes)
        # The last place is that of rows without a task.
        self._spare = most * context
        cache = (shape.layers, 2, self._spare + 1, shape.kv_heads, shape.head_size)
        self._cache = decoder.draw(*cache, deviation=1.0)
        self._rotation = Rotation.build(torch.arange(context, device=decoder.device), shape.head_size)
        self._prompt = decoder.draw_tokens(context)
        # A row's tokens remain when another task takes the row: their values do not matter.
        self._tokens = decoder.draw_tokens(most)
        self._rows = torch.empty((2, most + 1), dtype=torch.int32, device=decoder.device)
        self._queries = torch.arange(most + 1, dtype=torch.int32, device=decoder.device)
        self._put_rows([], [])
        self._launch = {size: self._capture(size) for size in self._sizes}

    def read(self, slot: int, tokens: int) -> None:
        """Read a prompt into a slot."""
        begin = slot * self._context

        def attend(number: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            cache = self._cache[number, :, begin : begin + tokens]
            cache[0], cache[1] = keys, values
            return self._attend_prompt(queries, keys, values)

        with torch.no_grad():
            x = self._decoder.compute(self._prompt[:tokens], self._rotation[:tokens], attend)
            self._decoder.find_logits(x[-1:]).argmax(dim=-1)
        self._wait()

    def iterate(self, slots: Sequence[int], contexts: Sequence[int]) -> None:
        """Give the task in each of the slots a token; its context includes that."""
        self._put_rows([slot * self._context for slot in slots], contexts)
        self._launch[next(size for size in self._sizes if size >= len(slots))]()
        self._wait()

    def check(self) -> float:
        """Compare the attention of a batch with that of its tasks one by one; return the error.

        Raises:
            ArithmeticError: it is larger than rounding.
        """
        shape, count = self._decoder.shape, self._sizes[-1]
        contexts = [1 + (number * 7919) % self._context for number in range(count)]
        order = [(number * 5) % count for number in range(count)]
        self._put_rows([slot * self._context for slot in order], contexts)
        queries = self._decoder.draw(count, shape.heads, shape.head_size, deviation=1.0)
        expected = self._attend_each(0, queries).float()
        error = float((self._attend_rows(0, queries).float() - expected).norm() / expected.norm())
        self._put_rows([], [])
        if not error < LARGEST_ERROR:
            raise ArithmeticError(f"attention of a batch is off by {error:.2%}")
        return error

    def _put_rows(self, starts: Sequence[int], contexts: Sequence[int]) -> None:
        spare = self._rows.shape[1] - len(starts)
        rows = [[*starts, *[self._spare] * spare], [*contexts, *[1] * spare]]
        self._rows.copy_(torch.tensor(rows, dtype=torch.int32))

    def _capture(self, size: int) -> Callable[[], object]:
        """Return what launches an iteration of that many rows, as a CUDA graph where there is CUDA."""
        if self._decoder.device != "cuda":
            return lambda: self._compute(size)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._compute(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._compute(size)
        return lambda: graph.replay()

    def _compute(self, size: int) -> None:
        starts, contexts = self._rows[:, :size].long()
        places = starts + contexts - 1

        def attend(number: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            cache = self._cache[number]
            cache[0].index_copy_(0, places, keys)
            cache[1].index_copy_(0, places, values)
            return self._attend_rows(number, queries)

        with torch.no_grad():
            x = self._decoder.compute(self._tokens[:size], self._rotation[contexts - 1], attend)
            self._tokens[:size].copy_(self._decoder.find_logits(x).argmax(dim=-1))

    def _attend_rows(self, number: int, queries: Tensor) -> Tensor:
        """Return what each row attends to, shape (rows, hidden)."""
        if self._decoder.device != "cuda":
            return self._attend_each(number, queries)
        size, (keys, values) = len(queries), self._cache[number]
        answer = torch.ops.aten._flash_attention_forward(
            queries,
            keys,
            values,
            self._queries[: size + 1],
            self._rows[0, : size + 1],
            1,
            self._context,
            0.0,
            False,
            False,
            seqused_k=self._rows[1, :size],
        )[0]
        return answer.reshape(size, -1)

    def _attend_each(self, number: int, queries: Tensor) -> Tensor:
        """Return the same, one row after the other."""
        answers = []
        for row, query in enumerate(queries):
            start, context = self._rows[:, row].tolist()
            keys, values = self._cache[number, :, start : start + context].transpose(1, 2)
            answers.append(_attend_plainly(query[:, None], keys, values).reshape(-1))
        return torch.stack(answers)

    def _attend_prompt(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self._decoder.device == "cuda":
            return attend_causally(queries, keys, values)
        answer = _attend_plainly(*(one.transpose(0, 1) for one in (queries, keys, values)), is_causal=True)
        return answer.transpose(0, 1).reshape(len(queries), -1)

    def _wait(self) -> None:
        if self._decoder.device == "cuda":
            torch.cuda.synchronize()


def _attend_plainly(queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False) -> Tensor:
    """Return what queries attend to; all of shape (heads, tokens, head size)."""
    answer = functional.scaled_dot_product_attention(
        queries[None], keys[None], values[None], is_causal=is_causal, enable_gqa=True
    )
    return answer[0]
