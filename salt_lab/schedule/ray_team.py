"""A team of worker actors: the one worker, or the N that train one trial together, that make up a slot."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from salt_lab.schedule.decisions import Death
from salt_lab.schedule.executor import Job
from salt_lab.schedule.places import Slot
from salt_lab.schedule.ray_worker import Outcome, TrialWorker, Whereabouts
from salt_lab.spec.resources import Resources

#: Seconds that the other workers of a team get to say what happened, once one has ended, and once one is gone without a word.
END_SECONDS, LOST_SECONDS = 25.0, 5.0


def actor_class(ray: Any) -> Any:
    """:class:`salt_lab.schedule.ray_worker.TrialWorker` as an actor; ``TrialActor`` is what its process is called."""

    class TrialActor(TrialWorker):
        def place(self) -> Whereabouts:
            context = ray.get_runtime_context()
            gpus = context.get_accelerator_ids().get("GPU", [])
            return self.whereabouts(context.get_node_id(), ray.util.get_node_ip_address(), gpus)

    return ray.remote(TrialActor)


@dataclass
class Team:
    """The workers of one slot.

    Attributes:
        name: the slot's.
        actors: one per worker.
        group: the placement group that holds their resources; None for one worker.
        refs: what is being waited for, one per worker: first where it is, then how its trial ended.
        where, slot: where it is; empty, None until all have said so.
        trial_id: what it runs; None = nothing.
        error: what Ray said about the first worker that was lost.
        deadline: when a team of which one has ended badly is ended as a whole; ``time.monotonic()`` seconds.
        asked_to_die: we killed it, for this reason.
        idle_since: ``time.monotonic()`` seconds.
        asked: after a death, questions to its nodes: how many processes were killed there for memory, and how many were before.
    """

    ray: Any
    name: str
    actors: list[Any]
    group: Any = None
    refs: list[Any] = field(default_factory=list)
    where: list[Whereabouts] = field(default_factory=list)
    slot: Slot | None = None
    trial_id: str | None = None
    error: BaseException | None = None
    deadline: float | None = None
    asked_to_die: Death | None = None
    idle_since: float = 0.0
    asked: dict[Any, int] | None = None
    _answers: dict[int, Any] = field(default_factory=dict)
    _began: list[Any] = field(default_factory=list)

    @classmethod
    def make(cls, ray: Any, actor: Any, name: str, resources: Resources, arguments: dict[str, Any]) -> Team:
        """Ask Ray for the workers; they start when there is room for them."""
        gpus, count = resources.gpus_per_worker or 0, resources.workers
        need: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        if count == 1:
            actors, group = [actor.options(**need).remote(**arguments)], None
        else:
            from ray.util.placement_group import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            group = placement_group([{"CPU": resources.cpus, **({"GPU": gpus} if gpus else {})}] * count, strategy="PACK")
            places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in range(count)]
            actors = [actor.options(**need, scheduling_strategy=place).remote(**arguments) for place in places]
        return cls(ray, name, actors, group, refs=[one.place.remote() for one in actors])

    def run(self, job: Job, root: Path, where: dict[str, Any]) -> None:
        """Start a trial; the team must be idle."""
        self.trial_id, self._answers, self.error, self.deadline = job.trial_id, {}, None, None
        self._began = [actor.began.remote() for actor in self.actors]
        if len(self.actors) == 1:
            self.refs = [self.actors[0].run.remote(job, root, where)]
            return
        address = self.where[0].address
        port = self.actors[0].reserve_port.remote(address)  # Ray hands the number over when it is there
        place = {**where, "workers": len(self.actors), "address": address}
        self.refs = [actor.run_rank.remote(job, root, rank, place, port) for rank, actor in enumerate(self.actors)]

    def take_in(self, ref: Any, now: float) -> None:
        """One of ``refs`` is there."""
        rank, answer = self.refs.index(ref), None
        try:
            answer = self.ray.get(ref)
        except Exception as error:  # what Ray raises for a lost worker, or a worker's own __init__
            self.error = self.error or error
        self._answers[rank] = answer
        well = isinstance(answer, Whereabouts) or (isinstance(answer, Outcome) and answer.state in ("done", "stopped"))
        if answer is None:
            self.deadline = now + LOST_SECONDS
        elif self.deadline is None and not (well and (rank or self.slot is None)):
            self.deadline = now + END_SECONDS

    @property
    def complete(self) -> bool:
        """Have all workers answered?"""
        return len(self._answers) == len(self.refs)

    def settled(self, now: float) -> bool:
        """Is there nothing more to wait for?"""
        return bool(self.refs) and (self.complete or (self.deadline is not None and now > self.deadline))

    @property
    def well(self) -> bool:
        """Have all workers answered, and none been lost?"""
        return self.complete and self.error is None and self.asked_to_die is None

    def settle(self, memory_of: dict[str, float], now: float) -> Slot:
        """All workers are there: where they are makes the slot, whose memory is that of the smallest of their devices.

        Args:
            memory_of: main memory by node, GiB.
            now: the time, for ``idle_since``.
        """
        self.where = [self._answers[rank] for rank in range(len(self.actors))]
        devices = [device for one in self.where for device in ([f"{one.node}/gpu {gpu}" for gpu in one.gpus] or [one.node])]
        sizes = [one.memory_gb if one.gpus else memory_of.get(one.node) for one in self.where]
        memory_gb = min((size for size in sizes if size is not None), default=None)
        self.slot = Slot(self.name, tuple(devices), tuple(one.node for one in self.where), memory_gb)
        self._rest(now)
        return self.slot

    def outcome(self, now: float) -> Outcome:
        """How the trial ended; the team is idle again. A signal to any of the workers was a signal to the trial."""
        answers = [self._answers[rank] for rank in range(len(self.actors))]
        signals = [one.signal_name for one in answers if one.signal_name]
        self._rest(now)
        return replace(answers[0], signal_name=next(iter(signals), None))

    def has_begun(self) -> bool:
        """Had a worker come to the trial before it was lost?"""
        for ref in self._began if self.trial_id is not None else ():
            with contextlib.suppress(Exception):
                self.ray.get(ref, timeout=0)
                return True
        return False

    def kill(self) -> None:
        """End its workers at once."""
        for actor in self.actors:
            with contextlib.suppress(Exception):
                self.ray.kill(actor, no_restart=True)

    def give_back(self) -> None:
        """End its workers and return what they reserved."""
        self.kill()
        if self.group is not None:
            from ray.util.placement_group import remove_placement_group

            with contextlib.suppress(Exception):
                remove_placement_group(self.group)

    def _rest(self, now: float) -> None:
        self.refs, self._answers, self._began, self.trial_id, self.deadline, self.idle_since = [], {}, [], None, None, now
