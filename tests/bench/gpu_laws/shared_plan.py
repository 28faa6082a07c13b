"""Which loads are measured together, and with which processes on the GPU."""

from dataclasses import replace

from bench.gpu_laws.shared_loads import Load, Stage

LARGE, MIDDLE, SMALL = "llama-8b", "llama-3b", "llama-1b"
BATCHES = (1, 8, 16, 32, 64)
PROMPTS = (512, 2048)
PAIRS = ((1, 1), (8, 8), (1, 64), (64, 1), (32, 32), (64, 64))
SMALL_PAIRS = ((8, 8), (1, 64), (64, 1), (64, 64))
WHILE_READING = 16
DUTY = 0.3


def _write(shape: str, tasks: int) -> Load:
    return Load(shape, tasks=tasks)


def _read(shape: str, tokens: int) -> Load:
    return Load(shape, prompt=tokens)


def _pause(load: Load, burst: int, duty: float = DUTY) -> Load:
    return replace(load, duty=duty, burst=burst)


def _list_alone(shape: str) -> tuple[tuple[Load, ...], ...]:
    return *((_write(shape, tasks),) for tasks in BATCHES), *((_read(shape, tokens),) for tokens in PROMPTS)


def _list_pairs(first: str, second: str, pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[Load, ...], ...]:
    return tuple((_write(first, one), _write(second, other)) for one, other in pairs)


def _list_readings(first: str, second: str) -> tuple[tuple[Load, ...], ...]:
    """Return one reading without a pause while the other writes, both ways, and a prompt now and then."""
    return (
        *((_read(first, tokens), _write(second, WHILE_READING)) for tokens in PROMPTS),
        *((_write(first, WHILE_READING), _read(second, tokens)) for tokens in PROMPTS),
        (_pause(_read(first, 512), 1, 0.05), _write(second, WHILE_READING)),
        (_write(first, WHILE_READING), _pause(_read(second, 512), 1, 0.05)),
    )


_PAUSED = (
    (_write(LARGE, 16), _pause(_write(MIDDLE, 16), 40)),
    (_write(LARGE, 16), _pause(_write(MIDDLE, 16), 1)),
    (_write(LARGE, 16), _pause(_write(MIDDLE, 16), 40, 0.1)),
    (_pause(_write(LARGE, 16), 20), _write(MIDDLE, 16)),
    (_pause(_write(LARGE, 16), 20), _pause(_write(MIDDLE, 16), 37)),
)
_AHEAD = tuple(
    (replace(_write(LARGE, one), ahead=4), replace(_write(MIDDLE, other), ahead=4)) for one, other in ((8, 8), (64, 1))
)
_GAP_S = 0.001
_WITH_GAPS = (
    (replace(_write(LARGE, 8), gap_s=_GAP_S),),
    (replace(_write(LARGE, 8), gap_s=_GAP_S), _write(MIDDLE, 8)),
    (replace(_write(LARGE, 8), gap_s=_GAP_S), replace(_write(MIDDLE, 8), gap_s=_GAP_S)),
)
_THREE = ((_write(LARGE, 8), _write(MIDDLE, 8), _write(SMALL, 8)),)

PLAN = (
    # What waiting processes draw, before the GPU is warm.
    Stage(((LARGE,),), ()),
    Stage(((LARGE,), (MIDDLE,)), ()),
    Stage(((LARGE,), (MIDDLE,), (SMALL,)), ()),
    Stage(((LARGE,),), _list_alone(LARGE)),
    Stage(
        ((LARGE,), (MIDDLE,)),
        (
            (_write(LARGE, 8),),
            *_list_alone(MIDDLE),
            *_list_pairs(LARGE, MIDDLE, PAIRS),
            *_list_readings(LARGE, MIDDLE),
            *_PAUSED,
            *_AHEAD,
            *_WITH_GAPS,
        ),
    ),
    Stage(
        ((LARGE,), (MIDDLE,), (SMALL,)),
        (*_list_alone(SMALL), *_list_pairs(LARGE, SMALL, SMALL_PAIRS), *_THREE),
    ),
    Stage(
        ((LARGE, MIDDLE),),
        (
            *_list_pairs(LARGE, MIDDLE, ((8, 8), (1, 64), (64, 1), (64, 64))),
            (_read(LARGE, 2048), _write(MIDDLE, WHILE_READING)),
        ),
    ),
    # Pods that each load the same model.
    Stage(((SMALL,),) * 4, tuple((_write(SMALL, tasks),) * copies for tasks in (1, 8) for copies in (1, 2, 4))),
)

SMOKE = (
    Stage(((SMALL,),), ((_write(SMALL, 8),),)),
    Stage(((SMALL,), (MIDDLE,)), ((_write(MIDDLE, 8),), (_write(SMALL, 8), _write(MIDDLE, 8)))),
    Stage(((SMALL, MIDDLE),), ((_write(SMALL, 8), _write(MIDDLE, 8)),)),
)
