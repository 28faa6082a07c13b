"""Which processes are killed when: drawn from a seed, so that a run can be repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

# In the order of their restart: a scheduler without an API server gives up.
VICTIMS = ("etcd", "kube-apiserver", "prometheus", "operator", "perllm-scheduler")
PAUSE_S = (1.0, 5.0)
DOWN_S = (0.3, 3.0)
PAIR_CHANCE = 0.25


@dataclass(frozen=True, slots=True)
class Kill:
    """One fault.

    Attributes:
        pause_s: time since everything works.
        victims: the processes that are killed, in the order of their restart.
        down_s: time until they are restarted.
    """

    pause_s: float
    victims: tuple[str, ...]
    down_s: float


def plan_kills(rng: Random) -> Iterator[Kill]:
    """Yield kills for ever; each process has a turn before any has a second one."""
    while True:
        for first in rng.sample(VICTIMS, len(VICTIMS)):
            chosen = {first, rng.choice(VICTIMS)} if rng.random() < PAIR_CHANCE else {first}
            yield Kill(rng.uniform(*PAUSE_S), tuple(one for one in VICTIMS if one in chosen), rng.uniform(*DOWN_S))
