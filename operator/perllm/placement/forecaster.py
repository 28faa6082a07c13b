"""The outlook of a task on each node: the arms that a policy chooses among, and how they are found.

Notation, per node, for a task of p prompt tokens and an answer of L tokens, with B - 1 tasks per GPU there already
    wait      time that the prompts before it take to be read, and its input behind others to be fetched
    token     seconds per token: (a + b (B - 1)) / (1 - share of the time spent on reading others' prompts) / pace
    pace      1 / (1 + other models that have work on a GPU): each has a batch of its own, so B, prompts and reading are
              those of its own model, and they divide the time (batch_table.py)
    T(L)      queue + transfer + start + cold load + reading (own and waiting prompts) + L token
    queue     where the node is full: the time until those before it, and it, have had their turn
    P(L)      chance that T(L) exp(e) <= time left, e with the scale of the errors of such decisions; logistic,
              which is within 0.01 of the normal one
    hit       mean of P over the equally likely lengths
    harm      delay by reading p x misses per second of delay  +  relative slow-down b / token x misses per unit of it,
              for as long as the task writes (flight_table.py); to tasks of other models, the slow-down 1 / (models that
              have work), unless its own has work already
    E         its share of the energy at B;  dE  by how much the fleet's rises: where others decode anyway an iteration
              costs nothing more, so the shared part counts 1 / B^2 instead of 1 / B
"""

from dataclasses import dataclass

import numpy as np

from perllm.learning.features import OUTPUT_UNIT, PROMPT_UNIT
from perllm.learning.learner import Learner
from perllm.learning.model_laws import ModelLaws, RunRates
from perllm.learning.type_law import RELATIVE_NOISE
from perllm.placement.fleet import Fleet
from perllm.placement.forecast import LEAST_S, MIN_TIME_SPREAD, Inference, RunEnergy, RunTimes, find_hit_chance
from perllm.placement.ledger import Ledger, NodeLoads
from perllm.placement.loaded_models import LoadedModels
from perllm.placement.outlook import Outlook
from perllm.placement.request import PlacementRequest
from perllm.policy.arrays import Index, as_index, columns
from perllm.policy.problem import Arms, BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """A task and the nodes that it could run on; arrays have shape (n,).

    Attributes:
        task: the task.
        rows: the nodes.
        index: the same.
        allowed: whether the task may be sent there at all.
        laws: of the task's model.
        loads: what is in flight on the nodes.
        slots: of the nodes.
        tasks: tasks on the nodes if the task ran there, itself included.
        used: slots in use if the task ran there, itself included.
        gpus: of the nodes.
        types: numbers of their GPU types.
        is_cloud: whether the nodes are of the cloud tier.
        capacity_bps: uplink of the nodes.
        used_bps: uplink in use there.
        demand_bps: uplink that would bring the input there in time.
        transmission_j: energy of moving the input there.
        rates: of the model on the nodes.
        cold: share of the time to load the model that is still to come.
        joule_cost: what a joule costs there, relative to the mean.
        idle_w: idle power of the nodes, in watts; 0 where it is unknown.
        occupancy: other tasks of the model that are expected to write, per GPU.
        pace: share of the time of a GPU that the model is expected to have there.
        slots_per_gpu: tasks that a GPU runs at a time.
        full_token_s: GPU seconds per token written of a node whose batch is full.
        joules: coefficients of the law of energy, shape (3, n).
    """

    task: Inference
    rows: IntArray
    index: Index
    allowed: BoolArray
    laws: ModelLaws
    loads: NodeLoads
    slots: FloatArray
    tasks: FloatArray
    used: FloatArray
    gpus: FloatArray
    types: IntArray
    is_cloud: BoolArray
    capacity_bps: FloatArray
    used_bps: FloatArray
    demand_bps: FloatArray
    transmission_j: FloatArray
    rates: RunRates
    cold: FloatArray
    joule_cost: FloatArray
    idle_w: FloatArray
    occupancy: FloatArray
    pace: FloatArray
    slots_per_gpu: FloatArray
    full_token_s: FloatArray
    joules: FloatArray


class Forecaster:
    """Forecasts tasks on nodes.

    Args:
        learner: knows the laws of the models.
        fleet: the nodes.
        ledger: the tasks in flight.
        transmission_j_per_bit: energy of moving one bit to a node, in the order of `Tier`.
        loaded: models that nodes count as having, besides those that are known to be loaded.
    """

    def __init__(
        self,
        learner: Learner,
        fleet: Fleet,
        ledger: Ledger,
        transmission_j_per_bit: FloatArray,
        loaded: LoadedModels,
    ) -> None:
        self._learner = learner
        self._fleet = fleet
        self._ledger = ledger
        self._transmission_j_per_bit = transmission_j_per_bit
        self._loaded = loaded

    def forecast(
        self,
        request: PlacementRequest,
        task: Inference,
        lengths: FloatArray,
        *,
        rows: IntArray,
        allowed: BoolArray,
        joule_cost: FloatArray,
        now_s: float,
    ) -> Outlook:
        """Return the outlook of a task on the nodes of `rows`; takes time linear in their number.

        Args:
            request: says how many slots the task takes, and of which namespace it is.
            task: what it asks of its model.
            lengths: equally likely lengths of its answer, shape (k,).
            rows: the nodes, shape (n,).
            allowed: whether it may be sent there at all, shape (n,).
            joule_cost: what a joule costs there, relative to the mean, shape (n,).
            now_s: now, by the ledger's clock.
        """
        scene = self._survey(request, task, rows=rows, allowed=allowed, joule_cost=joule_cost, now_s=now_s)
        (times, queue_s), energy, errors = _find_times(scene), _find_energy(scene), scene.laws.latency
        index, (doubt, plays) = scene.index, _find_doubt(scene)
        scatter = np.maximum(errors.scale[index], MIN_TIME_SPREAD)
        time_spread = np.maximum(scatter, doubt)
        return Outlook(
            times=times,
            queue_s=queue_s,
            energy=energy,
            demand_bps=scene.demand_bps,
            tasks=scene.loads.running * scene.loads.division.share + 1.0,
            gpus=scene.gpus,
            pace=scene.pace,
            types=scene.types,
            time_spread=time_spread,
            low=errors.low[index],
            high=errors.high[index],
            lengths=lengths,
            arms=_build_arms(
                scene,
                times,
                energy,
                _find_hit_chances(task.time_left_s, lengths, times, time_spread),
                doubt=doubt,
                plays=plays,
                spread=np.sqrt(scatter**2 + task.length_spread**2),
            ),
        )

    def _survey(
        self,
        request: PlacementRequest,
        task: Inference,
        *,
        rows: IntArray,
        allowed: BoolArray,
        joule_cost: FloatArray,
        now_s: float,
    ) -> _Scene:
        laws, fleet, index = self._learner.laws(task.model, rows), self._fleet, as_index(rows)
        loads = self._ledger.loads(
            index, now_s, model=task.model, namespace=request.namespace, resource=request.resource
        )
        slots, used = self._find_room(request, index, loads)
        capacity_bps, gpus = fleet.bandwidth_capacity_bps(index), fleet.gpus(index)
        rates, slots_per_gpu = laws.find_rates(index, is_served=task.is_served), np.maximum(slots / gpus, 1.0)
        return _Scene(
            task=task,
            rows=rows,
            index=index,
            allowed=allowed,
            laws=laws,
            loads=loads,
            slots=slots,
            tasks=loads.running + 1.0,
            used=used,
            gpus=gpus,
            types=laws.latency.group_of_row[index],
            is_cloud=fleet.is_cloud(index),
            capacity_bps=capacity_bps,
            used_bps=np.maximum(fleet.bandwidth_used_bps(index), loads.demand_bps),
            demand_bps=_find_demand(task, capacity_bps),
            transmission_j=task.input_bits * self._transmission_j_per_bit[fleet.tier_codes(index)],
            rates=rates,
            cold=np.minimum(laws.cold(index, now_s), self._loaded.cold(task.model, index, rates.load_s, now_s)),
            joule_cost=joule_cost,
            idle_w=fleet.idle_w(index),
            occupancy=loads.occupancy / gpus,
            pace=loads.division.pace,
            slots_per_gpu=slots_per_gpu,
            full_token_s=rates.find_token_s(slots_per_gpu - 1.0) / slots_per_gpu,
            joules=columns(laws.energy.coefficients.T, index),
        )

    def _find_room(self, request: PlacementRequest, rows: Index, loads: NodeLoads) -> tuple[FloatArray, FloatArray]:
        """Return the slots of each node for a task, and how many are in use if it ran there.

        A request needs a slot of a model server. A pod needs slots of the node and, since it uses the same GPU, may not
        take what the model servers of the node are busy with.
        """
        slots, served_slots = self._fleet.slots(rows, request.resource), self._fleet.served_slots(rows)
        free = served_slots - loads.running
        if request.is_served:
            capacity = np.where(np.isfinite(served_slots), served_slots, slots)
            return capacity, loads.running + request.slots
        return slots, request.demand.slots + np.maximum(loads.taken, slots - free)


def _build_arms(
    scene: _Scene,
    times: RunTimes[FloatArray],
    energy: RunEnergy[FloatArray],
    hit_chance: FloatArray,
    *,
    doubt: FloatArray,
    plays: FloatArray,
    spread: FloatArray,
) -> Arms:
    usual, loads = scene.laws.usual, scene.loads
    expected_s = scene.rates.read_s * (usual.prompt_tokens / PROMPT_UNIT) + usual.output_tokens * scene.full_token_s
    usual_s = np.where(loads.usual_work_s > 0.0, loads.usual_work_s, expected_s)
    return Arms(
        rows=scene.rows,
        allowed=scene.allowed,
        latency_s=times.latency_s,
        energy_j=energy.energy_j,
        compute_used=scene.used,
        compute_capacity=scene.slots,
        bandwidth_used_bps=scene.used_bps + scene.demand_bps,
        bandwidth_capacity_bps=scene.capacity_bps,
        in_flight=loads.running_model,
        is_cloud=scene.is_cloud,
        hit_chance=hit_chance,
        harm=_find_harm(scene, times),
        marginal_energy_j=_find_marginal_energy(scene, energy),
        transmission_j=scene.transmission_j,
        idle_j=_find_idle_energy(scene, times, energy),
        work=times.work_s / np.maximum(usual_s, 1e-9),
        load=loads.work_s / np.maximum(scene.slots_per_gpu * usual_s, LEAST_S),
        doubt=doubt,
        plays=plays,
        spread=spread,
        joule_cost=scene.joule_cost,
    )


def _find_doubt(scene: _Scene) -> tuple[FloatArray, FloatArray]:
    """Return what is not known of the law of the task's time on each node, and how many plays that corresponds to.

    The former is a deviation of its logarithm, found for a node of each type that is as busy as all of that type are in
    the mean. The latter are outcomes, and tasks in flight on all nodes of a type: its law learns from them.
    """
    task, loads, types = scene.task, scene.loads, scene.types
    counts = np.maximum(np.bincount(types), 1)
    waiting = np.bincount(types, loads.backlog_tokens / scene.gpus) / counts
    hundreds = task.output_tokens / OUTPUT_UNIT
    features = np.empty((len(counts), 5))
    features[:, 0] = 0.0 if task.is_served else 1.0
    features[:, 1] = (task.prompt_tokens + waiting) / PROMPT_UNIT
    features[:, 2] = hundreds
    features[:, 3] = np.bincount(types, scene.occupancy) / counts * hundreds
    features[:, 4] = 1.0 - features[:, 0]
    doubt = scene.laws.latency.doubt(features)
    plays = (RELATIVE_NOISE / np.maximum(doubt, LEAST_S)) ** 2 + np.bincount(types, loads.running_model)
    return doubt[types], plays[types]


def _find_times(scene: _Scene) -> tuple[RunTimes[FloatArray], FloatArray]:
    """Return how long the task takes on each node, and the part of it in which it waits for room."""
    task, loads, slots, used, rates = scene.task, scene.loads, scene.slots, scene.used, scene.rates
    lone_reading_s = rates.read_s * (task.prompt_tokens / PROMPT_UNIT)
    token_s = rates.find_token_s(scene.occupancy) / ((1.0 - loads.reading_share) * scene.pace)
    transfer_s = (task.input_bits + loads.link_bits) / np.maximum(scene.capacity_bps, 1.0)
    read_tokens = (task.prompt_tokens + loads.backlog_tokens / scene.gpus) / scene.pace
    fixed_s = transfer_s + rates.find_first_s(read_tokens, scene.cold)
    residence_s = fixed_s + task.output_tokens * token_s
    turns = np.where(used <= slots, 0.0, used + loads.waiting - slots) / np.maximum(slots, 1.0)
    queue_s = turns * residence_s
    times = RunTimes(
        latency_s=residence_s + queue_s,
        fixed_s=fixed_s + queue_s,
        transfer_s=transfer_s,
        reading_s=lone_reading_s / scene.pace,
        work_s=lone_reading_s + task.output_tokens * scene.full_token_s,
        token_s=token_s,
        solo_token_s=rates.solo_token_s,
        contention_s=rates.contention_s,
        cold=scene.cold,
    )
    return times, queue_s


def _find_energy(scene: _Scene) -> RunEnergy[FloatArray]:
    task, (prompt_j, own_j, shared_j) = scene.task, scene.joules
    fixed_j = prompt_j * (task.prompt_tokens / PROMPT_UNIT) + scene.transmission_j
    token_j = (own_j + shared_j / (scene.occupancy + 1.0)) / OUTPUT_UNIT
    return RunEnergy(
        energy_j=fixed_j + task.output_tokens * token_j,
        transmission_energy_j=scene.transmission_j,
        fixed_j=fixed_j,
        token_j=token_j,
    )


def _find_marginal_energy(scene: _Scene, energy: RunEnergy[FloatArray]) -> FloatArray:
    """Return by how much the energy of the fleet rises; joules."""
    _, own_j, shared_j = scene.joules
    token_j = (own_j + shared_j / (scene.occupancy + 1.0) ** 2) / OUTPUT_UNIT
    rise_j: FloatArray = energy.fixed_j + scene.task.output_tokens * token_j
    return rise_j


def _find_idle_energy(scene: _Scene, times: RunTimes[FloatArray], energy: RunEnergy[FloatArray]) -> FloatArray:
    """Return the task's share of the idle power of each node for the time of its inference; joules."""
    inference_s = times.reading_s + scene.task.output_tokens * times.token_s
    idle_j: FloatArray = np.minimum(scene.idle_w * inference_s / scene.tasks, energy.energy_j - scene.transmission_j)
    return idle_j


def _find_harm(scene: _Scene, times: RunTimes[FloatArray]) -> FloatArray:
    """Return how many of the tasks on each node are expected to miss their deadline because of the task.

    Those of its model are in its batch. Those of others lose time to it only as far as its model had no work before.
    """
    loads, delay_s, division = scene.loads, times.reading_s / scene.gpus, scene.loads.division
    writing_s = scene.task.output_tokens * times.token_s
    affected = np.minimum(writing_s / np.maximum(loads.harmed_s, 1e-9), 1.0)
    slower = times.contention_s / scene.pace / np.maximum(times.token_s, 1e-9) / scene.gpus * affected
    own_harm: FloatArray = delay_s * loads.stall_harm + slower * loads.slow_harm
    if division.is_whole:
        return own_harm
    displacing = (1.0 - division.busy) / np.maximum(division.others, 1.0) / scene.gpus * affected
    harm: FloatArray = own_harm * division.share + displacing * loads.slow_harm * (1.0 - division.share)
    return harm


def _find_hit_chances(
    time_left_s: float, lengths: FloatArray, times: RunTimes[FloatArray], time_spread: FloatArray
) -> FloatArray:
    """Return the chance to be in time on each node."""
    times_s = lengths[:, None] * times.token_s
    times_s += np.maximum(times.fixed_s, LEAST_S)
    chances: FloatArray = find_hit_chance(times_s, time_left_s, time_spread).sum(axis=0)
    chances /= len(lengths)
    return chances


def _find_demand(task: Inference, capacity_bps: FloatArray) -> FloatArray:
    """Return the uplink that would bring the input to each node in time.

    Nothing where the whole link could not: the task is late there (C1), and waiting for room (C3) would not help.
    """
    wanted_bps = task.input_bits / task.time_left_s if task.time_left_s > 0 else np.inf
    return np.where(wanted_bps <= capacity_bps, wanted_bps, 0.0)
