"""Several launches of one study at a time: each takes the trials that nobody runs, and stays until those of the others have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salt_lab.record.store import Store
from salt_lab.schedule.executor import Executor, Job
from salt_lab.schedule.interrupts import signals_as_interrupt

#: Seconds between two looks at the trials of others.
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class SharedStudy:
    """Runs a launch's trials beside other launches.

    Args:
        executor: Where trials run. It gives its resources back before it waits for others.
        store: The results folder, shared with the other launches.
        study: The study's name.
        launch_id: This launch.
        on_tick: Called about once a second, also while it waits.
        say: Tells the one who launched.
    """

    executor: Executor
    store: Store
    study: str
    launch_id: str
    on_tick: Callable[[], None]
    say: Callable[[str], None]

    def run(self, jobs: Sequence[Job], wait: bool = True) -> None:
        """Run the jobs; those that another process runs come last and are left to it.

        Args:
            jobs: The trials.
            wait: Stay until the trials of others have ended, and go on with those that another process did not bring to an end.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM.
        """
        mine: list[Job] = sorted(jobs, key=self.is_elsewhere)
        theirs: list[Job] = []
        while mine:
            self.executor.run(mine, self.store, self.study, self.launch_id, self.on_tick)
            theirs = [job for job in dict.fromkeys([*theirs, *mine]) if self.is_elsewhere(job)]
            if not (theirs and wait):
                return
            self.executor.close()
            self.say(f"waiting for {len(theirs)} {'trial' if len(theirs) == 1 else 'trials'} run by another process (--no-wait does not)")
            mine = self._left_undone(theirs)
            if mine:
                self.say(f"going on with {len(mine)} that the other process left undone")
                self.executor.check()

    def is_elsewhere(self, job: Job) -> bool:
        """Does another launch hold the trial now?"""
        if not self.store.is_running(job.trial_id):
            return False
        record = self.store.record(job.trial_id)
        return record.state != "done" and record.launch_id != self.launch_id

    def _left_undone(self, theirs: Sequence[Job]) -> list[Job]:
        """Wait until others have ended their trials; the first that they left without an end, or none when all have ended."""
        with signals_as_interrupt() as interrupt:
            while True:
                interrupt.raise_if_asked()
                self.on_tick()
                held = [job for job in theirs if self.is_elsewhere(job)]
                free = [job for job in theirs if job not in held and self.store.record(job.trial_id).state in ("new", "interrupted")]
                if free or not held:
                    return free
                time.sleep(POLL_SECONDS)
