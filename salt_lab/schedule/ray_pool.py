"""Warm workers on a Ray cluster: teams are made where there is room, live between trials, and are replaced when they are lost."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from salt_lab.errors import UserError
from salt_lab.schedule.decisions import Death
from salt_lab.schedule.executor import Job
from salt_lab.schedule.places import Slot
from salt_lab.schedule.ray_cluster import teams_that_fit
from salt_lab.schedule.ray_team import Team, actor_class
from salt_lab.schedule.ray_worker import Outcome, oom_kills, send_signal
from salt_lab.spec.resources import Resources

#: Seconds between two looks at the cluster's nodes.
LOOK_SECONDS = 2.0
#: Teams that may wait for room beyond what the cluster has now, so that an autoscaler sees that more would be used.
AHEAD = 4
#: Seconds without work after which a team's resources are given back, once no trial waits.
IDLE_SECONDS = 20.0
#: Teams that could not start, one after the other and none that could, before the launch is given up.
MAX_FAILED_STARTS = 4
#: Seconds that a far node gets to pass on a signal or answer a question.
ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Event:
    """Something happened to a slot: it ``joined``; it was ``lost`` while idle; its trial ``ended`` with an outcome, or ``died``, or came to
    nothing because the slot was gone before it began (``unstarted``)."""

    kind: Literal["joined", "lost", "ended", "died", "unstarted"]
    slot: Slot
    outcome: Outcome | None = None
    death: Death = "killed"

    @property
    def is_there(self) -> bool:
        """Can the slot still be used? Not after a loss, nor after a signal to its workers."""
        return self.kind == "joined" or (self.kind == "ended" and self.outcome is not None and self.outcome.signal_name is None)


class RayPool:
    """The teams of a launch.

    Args:
        ray: the module, connected.
        resources: of a trial; ``gpus`` must be settled.
        arguments: of each :class:`salt_lab.schedule.ray_worker.TrialWorker`.
        embedded: nobody else is on this Ray, and it cannot grow.
    """

    def __init__(self, ray: Any, resources: Resources, arguments: dict[str, Any], *, embedded: bool) -> None:
        self.ray, self.resources, self.embedded = ray, resources, embedded
        self._arguments, self._actor = arguments, actor_class(ray)
        self._here = ray.get_runtime_context().get_node_id()
        self._teams: dict[str, Team] = {}
        self._numbers = itertools.count(1)
        self._news: list[Event] = []
        self._memory_of: dict[str, float] = {}
        self._looked, self.room = -LOOK_SECONDS, 0
        self._failures, self._not_before, self._ever = 0, 0.0, False

    @property
    def ready(self) -> int:
        """Slots that are there."""
        return sum(team.slot is not None for team in self._teams.values())

    def resize(self, wanted: int, waiting: int, now: float) -> None:
        """Make teams until there are ``wanted``, as far as there is room for them; let go of idle ones when no trial is ``waiting``."""
        if now - self._looked >= LOOK_SECONDS:
            self._look(now)
        limit = self.room if self.embedded else self.room + AHEAD
        while len(self._teams) < min(wanted, limit) and now >= self._not_before:
            name = f"slot-{next(self._numbers)}"
            self._teams[name] = Team.make(self.ray, self._actor, name, self.resources, self._arguments)
        if not waiting:
            self._lose(team for team in self._idle() if now - team.idle_since > IDLE_SECONDS)

    def start(self, slot: str, job: Job, root: Path, where: dict[str, Any]) -> None:
        """Run a trial on an idle slot."""
        self._teams[slot].run(job, root, where)

    def events(self, seconds: float) -> Iterator[Event]:
        """What has happened, waiting at most so long for the first thing.

        Raises:
            UserError: no worker can start on this cluster.
        """
        refs = {ref: team for team in self._teams.values() for ref in team.refs}
        ready = self._ready(list(refs), 0.0 if self._news else seconds)
        now = time.monotonic()
        for ref in ready:
            refs[ref].take_in(ref, now)
        for team in [team for team in self._teams.values() if team.settled(now)]:
            event = self._event(team, now)
            if event is not None:
                yield event
        told, self._news = self._news, []
        yield from told

    def kill(self, slot: str, death: Death) -> None:
        """End a slot's workers at once; :meth:`events` tells of it as this death."""
        team = self._teams[slot]
        team.asked_to_die, team.deadline = death, time.monotonic() + 1.0
        team.kill()

    def ask_for_stacks(self, slot: str) -> None:
        """Have each worker of a slot write down where it is, into its trial's ``stacks.log``."""
        self._signal([self._teams[slot]], signal.SIGUSR1)

    def stop(self, seconds: float) -> None:
        """Ask every worker that runs a trial to checkpoint and leave (SIGTERM), and wait for them."""
        busy = [team for team in self._teams.values() if team.trial_id is not None]
        self._signal(busy, signal.SIGTERM)
        refs = [ref for team in busy for ref in team.refs]
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=seconds)

    def close(self) -> None:
        """End all workers."""
        for name in list(self._teams):
            self._teams.pop(name).give_back()

    def _ready(self, refs: list[Any], seconds: float) -> list[Any]:
        if not refs:
            time.sleep(seconds)
            return []
        first, _ = self.ray.wait(refs, num_returns=1, timeout=seconds)
        return self.ray.wait(refs, num_returns=len(refs), timeout=0)[0] if first else []

    def _look(self, now: float) -> None:
        """Which nodes are there, and how many teams they can hold. Idle teams on lost nodes are dropped; busy ones tell by themselves."""
        self._looked = now
        nodes = {node["NodeID"]: node["Resources"] for node in self.ray.nodes() if node["Alive"]}
        self.room = teams_that_fit(nodes.values(), self.resources)
        self._memory_of = {name: has["memory"] / 2**30 for name, has in nodes.items() if "memory" in has}
        self._nodes = set(nodes)
        self._lose(team for team in self._idle() if team.slot is not None and not self._nodes.issuperset(team.slot.nodes))

    def _idle(self) -> list[Team]:
        return [team for team in self._teams.values() if team.slot is not None and team.trial_id is None]

    def _lose(self, teams: Iterable[Team]) -> None:
        for team in teams:
            assert team.slot is not None
            self._news.append(Event("lost", team.slot))
            self._drop(team)

    def _drop(self, team: Team) -> None:
        self._teams.pop(team.name).give_back()

    def _event(self, team: Team, now: float) -> Event | None:
        if team.slot is None:
            return self._joined(team, now)
        if not team.well:
            death = team.asked_to_die or self._death(team, now)
            if death is None:
                return None
            begun = team.has_begun()
            self._drop(team)
            return Event("died" if begun else "unstarted", team.slot, death=death)
        outcome = team.outcome(now)
        if outcome.signal_name is not None:  # its machine may be about to go
            self._drop(team)
        return Event("ended", team.slot, outcome)

    def _joined(self, team: Team, now: float) -> Event | None:
        if team.well:
            self._failures, self._ever = 0, True
            return Event("joined", team.settle(self._memory_of, now))
        self._drop(team)
        self._failures += 1
        self._not_before = now + min(60.0, 2.0 ** (self._failures - 1) - 1)
        if self._failures >= MAX_FAILED_STARTS and not self._ever:
            lines = [line.strip() for line in str(team.error).splitlines() if line.strip()]
            raise UserError(
                f"No worker could start on the Ray cluster, {self._failures} times: {lines[-1]}. Are the same Python and packages installed on "
                "all nodes, and is the code there (ray job submit --working-dir)?"
            )
        return None

    def _death(self, team: Team, now: float) -> Death | None:
        """What killed it: Ray's word for it where it has one, else the kernel's count of processes killed for memory; None = not known yet."""
        from ray import exceptions

        error, text = team.error, str(team.error)
        if isinstance(error, exceptions.OutOfMemoryError) or "low on memory" in text:
            return "oom"
        if getattr(error, "preempted", False):
            return "preempted"
        if not self._nodes.issuperset(one.node for one in team.where) or isinstance(error, exceptions.NodeDiedError):
            return "node"
        if any(one.node == self._here and oom_kills() > one.oom_kills for one in team.where):
            return "oom"
        if team.asked is None:
            team.asked = {self._on(one.node, oom_kills): one.oom_kills for one in team.where if one.node != self._here}
            team.deadline = now
        more = [None if (count := self._answer(ref)) is None else count - before for ref, before in team.asked.items()]
        if None in more:
            late = team.deadline is not None and now > team.deadline + ASK_SECONDS
            return "node" if late else None  # Ray itself takes half a minute to call a silent node dead
        return "oom" if any(more) else "killed"

    def _answer(self, ref: Any) -> int | None:
        """The far node's count; None while there is none, and where the node is gone."""
        with contextlib.suppress(Exception):
            return int(self.ray.get(ref, timeout=0))
        return None

    def _signal(self, teams: Sequence[Team], number: int) -> None:
        far = []
        for one in (where for team in teams for where in team.where):
            if one.node == self._here:
                send_signal(one.pid, number)
            elif one.node in self._nodes:
                far.append(self._on(one.node, send_signal, one.pid, int(number)))
        if far:
            self.ray.wait(far, num_returns=len(far), timeout=ASK_SECONDS)

    def _on(self, node: str, function: Any, *arguments: Any) -> Any:
        """Call a function on a node, beside everything that runs there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        return self.ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(*arguments)
