"""What is to be expected of a task on each node: the arms a policy chooses among, and how they came about.

Notation, per node, for a task of p prompt tokens and an answer of L tokens, with B - 1 tasks per GPU there already
    wait      time that the prompts before it take to be read, and its input behind others to be fetched
    pace      seconds per token: (a + b (B - 1)) / (1 - share of the time spent on reading others' prompts)
    T(L)      transfer + start + cold load + reading (own and waiting prompts) + L pace
    P(L)      chance that T(L) exp(e) <= time left, e with the scale of the errors of such decisions; logistic,
              which is within 0.01 of the normal one
    hit       mean of P over the equally likely lengths
    harm      delay by reading p x misses per second of delay  +  relative slow-down b / pace x misses per unit of it,
              for as long as the task stays (Ledger.refresh)
    E         its share of the energy at B;  dE  by how much the fleet's rises: where others decode anyway an iteration
              costs nothing more, so the shared part counts 1 / B^2 instead of 1 / B
"""

from dataclasses import dataclass

import numpy as np

from perllm.learning.features import OUTPUT_UNIT, PROMPT_UNIT
from perllm.learning.learner import Learner
from perllm.learning.lengths import Length
from perllm.learning.model_laws import ModelLaws
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.policy.problem import Arms, BoolArray, FloatArray, IntArray

LOGISTIC = 1.702
"""The logistic function of 1.702 x is within 0.01 of the normal distribution function of x."""

MAX_EXPONENT = 700.0
"""The exponential of more is no float."""

MIN_SCALE = 0.03
LEAST_S = 1e-6


@dataclass(frozen=True, slots=True)
class Inference:
    """A task as placement sees it, with what is known of its answer and how many slots it takes."""

    model: str
    prompt_tokens: float
    bits: float
    time_left_s: float
    length: Length
    slots: float = 1.0
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected on each of n nodes; every array has shape (n,).

    Attributes:
        fixed_s: seconds from now to the first token written.
        transfer_s: the transfer's part.
        reading_s: the part that its own prompt takes to be read.
        work_s: GPU seconds of the task on a full node.
        token_s: seconds per token.
        solo_token_s: seconds per token without anybody else.
        contention_s: seconds per token that each further task adds.
        fixed_j: joules that do not depend on the answer, transmission included.
        token_j: joules per token.
        running: tasks in flight there.
        demand_bps: uplink that brings the input there in time.
        transmission_j: energy of moving the input.
        cold: share of the time to load the model that is still to come.
        scale: standard deviation of ln(actual / expected seconds).
        low: 5 % quantile of actual / expected seconds.
        high: 95 % quantile of it.
        arms: what the policy chooses among.
    """

    fixed_s: FloatArray
    transfer_s: FloatArray
    reading_s: FloatArray
    work_s: FloatArray
    token_s: FloatArray
    solo_token_s: FloatArray
    contention_s: FloatArray
    fixed_j: FloatArray
    token_j: FloatArray
    running: FloatArray
    demand_bps: FloatArray
    transmission_j: FloatArray
    cold: FloatArray
    scale: FloatArray
    low: FloatArray
    high: FloatArray
    arms: Arms


def look_out(
    job: Inference,
    rows: IntArray,
    allowed: BoolArray,
    learner: Learner,
    fleet: Fleet,
    ledger: Ledger,
    transmission_j_per_bit: FloatArray,
    now_s: float,
) -> Outlook:
    """Return what is to be expected of a task on the nodes of `rows`; linear in their number."""
    laws, gpus = learner.laws(job.model, rows), fleet.gpus(rows)
    start_s, read_s, solo_token_s, contention_s = laws.latency.coefficients[rows].T
    used = ledger.taken(rows) + job.slots
    reading_s = read_s * (job.prompt_tokens / PROMPT_UNIT)
    wait_s = read_s * (ledger.backlog_tokens(rows, now_s) / gpus / PROMPT_UNIT)
    busy = ledger.reading_share(rows, now_s)
    crowd = ledger.crowd(rows, now_s) / gpus
    solo_token_s, contention_s = solo_token_s / OUTPUT_UNIT, contention_s / OUTPUT_UNIT
    token_s = (solo_token_s + contention_s * crowd) / (1.0 - busy)
    capacity_bps = fleet.bandwidth_capacity_bps(rows)
    demand_bps, used_bps = _demand(job, rows, fleet, ledger, capacity_bps)
    transfer_s = (job.bits + ledger.link_bits(rows, now_s)) / np.maximum(capacity_bps, 1.0)
    cold = laws.cold(rows, now_s)
    fixed_s = start_s + transfer_s + laws.load_s[rows] * cold + wait_s + reading_s
    fixed_j, token_j, marginal_token_j, transmission_j = _energies(job, laws, rows, crowd, transmission_j_per_bit)
    scale = np.maximum(laws.latency.scale[rows], MIN_SCALE)
    stall, slow, harmed_s = ledger.harms(rows)
    slots = fleet.slots(rows)
    residence_s = fixed_s + job.length.mean * token_s
    ahead = np.where(used <= slots, 0.0, used + ledger.waiting(rows, job.namespace) - slots)
    queue_s = ahead / np.maximum(slots, 1.0) * residence_s
    fixed_s, residence_s = fixed_s + queue_s, residence_s + queue_s
    delay_s = reading_s / gpus
    slower = contention_s / np.maximum(token_s, 1e-9) / gpus * np.minimum(residence_s / np.maximum(harmed_s, 1e-9), 1.0)
    per_gpu = np.maximum(slots / gpus, 1.0)
    full_s = (solo_token_s + contention_s * (per_gpu - 1.0)) / per_gpu
    work_s = reading_s + job.length.mean * full_s
    usual_s = read_s * (laws.usual.prompt_tokens / PROMPT_UNIT) + laws.usual.output_tokens * full_s
    arms = Arms(
        rows=rows,
        allowed=allowed,
        latency_s=residence_s,
        energy_j=fixed_j + job.length.mean * token_j,
        compute_used=used,
        compute_capacity=slots,
        bandwidth_used_bps=used_bps + demand_bps,
        bandwidth_capacity_bps=capacity_bps,
        in_flight=ledger.running_model(job.model, rows),
        is_cloud=fleet.is_cloud(rows),
        hit_chance=hit_chances(job, fixed_s, token_s, scale),
        harm=delay_s * stall + slower * slow,
        marginal_energy_j=fixed_j + job.length.mean * marginal_token_j,
        work=work_s / np.maximum(usual_s, 1e-9),
        load=ledger.load(rows, now_s, job.namespace) / np.maximum(per_gpu * usual_s, LEAST_S),
    )
    return Outlook(
        fixed_s,
        transfer_s,
        reading_s,
        work_s,
        token_s,
        solo_token_s,
        contention_s,
        fixed_j,
        token_j,
        ledger.running(rows),
        demand_bps,
        transmission_j,
        cold,
        scale,
        np.exp(laws.latency.low[rows]),
        np.exp(laws.latency.high[rows]),
        arms,
    )


def hit_chances(job: Inference, fixed_s: FloatArray, token_s: FloatArray, scale: FloatArray) -> FloatArray:
    """Return the chance to be in time on each node, shape (n,)."""
    if job.time_left_s <= 0:
        return np.zeros_like(fixed_s)
    times_s = np.maximum(fixed_s[:, None] + token_s[:, None] * job.length.points, LEAST_S)
    late = np.minimum((LOGISTIC / scale)[:, None] * np.log(times_s / job.time_left_s), MAX_EXPONENT)
    chances: FloatArray = (1.0 / (1.0 + np.exp(late))).sum(axis=1)
    chances /= len(job.length.points)
    return chances


def _energies(
    job: Inference, laws: ModelLaws, rows: IntArray, crowd: FloatArray, transmission_j_per_bit: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    prompt_j, own_j, shared_j = laws.energy.coefficients[rows].T
    transmission_j = job.bits * transmission_j_per_bit
    fixed_j = prompt_j * (job.prompt_tokens / PROMPT_UNIT) + transmission_j
    batch = crowd + 1.0
    token_j = (own_j + shared_j / batch) / OUTPUT_UNIT
    marginal_token_j = (own_j + shared_j / batch**2) / OUTPUT_UNIT
    return fixed_j, token_j, marginal_token_j, transmission_j


def _demand(
    job: Inference, rows: IntArray, fleet: Fleet, ledger: Ledger, capacity_bps: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the uplink that would bring the input to each node in time, and what is in use there.

    Nothing where the whole link could not: the task is late there (C1), and waiting for room (C3) would not help.
    """
    wanted_bps = job.bits / job.time_left_s if job.time_left_s > 0 else np.inf
    demand_bps = np.where(wanted_bps <= capacity_bps, wanted_bps, 0.0)
    return demand_bps, np.maximum(fleet.bandwidth_used_bps(rows), ledger.demand_bps(rows))
