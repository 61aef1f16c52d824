"""One launch on Ray from its first start to its last end: what the dispatcher decides is done, and what happens is told to it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salt_lab.errors import SaltLabError
from salt_lab.record.store import Store
from salt_lab.schedule.closing import JournalClosing, settled
from salt_lab.schedule.decisions import Need, Policy, Verdict
from salt_lab.schedule.dispatch import Dispatcher
from salt_lab.schedule.executor import Job
from salt_lab.schedule.interrupts import Interrupt
from salt_lab.schedule.pulse import Pulse
from salt_lab.schedule.ray_worker import Outcome

if TYPE_CHECKING:
    from salt_lab.schedule.ray_executor import RayExecutor
    from salt_lab.schedule.ray_pool import Event, RayPool

#: Seconds that stopped workers get to checkpoint and close their journals before they are killed.
LET_GO = 8.0
#: Seconds that a launch waits for nodes when the last one that can hold a trial is gone.
ROOM_SECONDS = 900.0
#: Seconds between two looks at what has happened, where nothing does.
TICK = 0.5
#: Errors of a trial's own that mean that memory ran out, in a record's words.
NO_MEMORY = re.compile(r"OutOfMemoryError|CUDA out of memory|\bMemoryError\b|can't allocate memory|_STATUS_ALLOC_FAILED")


@dataclass
class Loop:
    """One run of an executor: what the dispatcher decides is done, and what happens is told to it."""

    executor: RayExecutor
    pool: RayPool
    jobs: Sequence[Job]
    closings: dict[str, JournalClosing]
    store: Store
    where: dict[str, Any]

    def __post_init__(self) -> None:
        executor, memory = self.executor, self.executor.resources.memory_gb
        self._by_id = {job.trial_id: job for job in self.jobs}
        need_of = executor.need_of or (lambda job: Need(memory_gb=memory))
        policy = Policy(max_deaths=executor.max_deaths, busy_patience=executor.patience)
        self.dispatcher = Dispatcher(list(self._by_id), lambda name: need_of(self._by_id[name]), policy)
        self.pulse = Pulse(executor.hang_seconds)
        self._felt = self._room_seen = time.monotonic()

    def run(self, interrupt: Interrupt) -> None:
        """Until every trial has ended, or somebody asks for an end: then the workers leave in order and the journals are closed."""
        try:
            while not self.dispatcher.finished:
                interrupt.raise_if_asked()
                self.step(time.monotonic())
            settled(self.closings.values())
        except KeyboardInterrupt:
            interrupt.signal_name = interrupt.signal_name or "SIGINT"
            self._leave(interrupt)

    def step(self, now: float) -> None:
        """What has happened since, and what follows from it."""
        most = self.executor.max_concurrent or len(self.jobs)
        waiting = self.dispatcher.waiting
        useless = self.pool.ready - len(self.dispatcher.running) if waiting else 0  # idle, but what waits does not fit there
        self.pool.resize(min(most, self.dispatcher.left_over + useless), waiting, now)
        self._give_up_without_room(now)
        for event in self.pool.events(TICK):
            self._take_in(event, time.monotonic())
        self._feel_the_pulse(time.monotonic())
        for start in self.dispatcher.next_starts(time.monotonic()):
            self.pulse.started(start.trial_id, time.monotonic(), self._heartbeat(start.trial_id))
            self.pool.start(start.slot, self._by_id[start.trial_id], self.store.root, self.where)

    def _give_up_without_room(self, now: float) -> None:
        if self.pool.ready or self.pool.room:
            self._room_seen = now
        elif now - self._room_seen > ROOM_SECONDS:
            raise SaltLabError(
                f"The Ray cluster has had no node that can hold a trial for {ROOM_SECONDS / 60:.0f} minutes; {self.dispatcher.left_over} trials "
                "are left. The same command goes on with them once there are nodes again."
            )

    def _take_in(self, event: Event, now: float) -> None:
        slot = event.slot.name
        trial_id = self.dispatcher.on(slot)
        if event.kind == "joined":
            self.dispatcher.joined(event.slot)
            return
        if trial_id is not None:
            self.pulse.ended(trial_id)
            if event.kind == "ended" and event.outcome is not None:
                self._ended(trial_id, event.outcome, now)
            elif event.kind == "died":
                self._close(trial_id, self.dispatcher.died(trial_id, event.death, now))
            else:
                self.dispatcher.given_back(trial_id)
        if not event.is_there:
            self.dispatcher.left(slot)

    def _ended(self, trial_id: str, outcome: Outcome, now: float) -> None:
        """The worker is free. How the trial ended is in its journal; here it only matters whether it is to be tried again."""
        if outcome.signal_name is not None and outcome.state == "interrupted":
            self._close(trial_id, self.dispatcher.died(trial_id, "preempted", now))
        elif outcome.state == "interrupted":  # one of its other workers is gone
            self._close(trial_id, self.dispatcher.died(trial_id, "killed", now))
        elif outcome.state == "failed" and NO_MEMORY.search(outcome.reason) and self.dispatcher.can_try_alone(trial_id):
            self.dispatcher.died(trial_id, "oom", now)  # its own words are in the journal
        else:
            if outcome.state == "failed":  # its journal says so, unless there was no room for it
                self.closings[trial_id].failed(outcome.reason or "it ended without saying how")
            self.dispatcher.ended(trial_id, outcome.state, now)

    def _close(self, trial_id: str, verdict: Verdict) -> None:
        """Every attempt has an end in the journal, also one that could not write it."""
        (self.closings[trial_id].lost if verdict.again else self.closings[trial_id].given_up)(verdict.reason)

    def _feel_the_pulse(self, now: float) -> None:
        """Kill the workers of trials that hang; first they say where they are."""
        if now - self._felt < min(5.0, self.executor.hang_seconds / 4):
            return
        self._felt = now
        settled(self.closings.values())
        for trial_id in self.dispatcher.running:
            self.pulse.seen(trial_id, self._heartbeat(trial_id), now)
        for trial_id in self.pulse.silent(now):
            slot = self.dispatcher.slot_of(trial_id)
            self.pulse.ended(trial_id)
            if slot is not None:
                self.pool.ask_for_stacks(slot)
                self.pool.kill(slot, "hang")

    def _heartbeat(self, trial_id: str) -> float | None:
        with contextlib.suppress(OSError):
            return (self.store.trial_dir(trial_id) / "heartbeat").stat().st_mtime
        return None

    def _leave(self, interrupt: Interrupt) -> None:
        """The workers checkpoint and write their ends; for those that do not, it is written in their place."""
        deadline = time.monotonic() + LET_GO
        with contextlib.suppress(KeyboardInterrupt):  # asked twice: at once
            self.pool.stop(LET_GO)
        self.pool.close()
        for closing in self.closings.values():
            if closing.touched:  # else it had not started, and is still waiting
                closing.interrupted(interrupt.signal_name or "SIGINT", wait=max(1.0, deadline - time.monotonic()))
