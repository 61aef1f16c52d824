"""A study's wall time against its trials and slots, and what deciding costs, on a clock that costs nothing: up to 10,000 trials on 1,000 slots.

    python benchmarks/scaling_study.py --output benchmarks/results/scaling_study

What decides is the executor's own code (:class:`salt_lab.schedule.dispatch.Dispatcher`, the loop's events played by
:func:`salt_lab.schedule.simulation.play`); only the trials are made up. A cell's length is drawn log-normally (median 4 h, sigma 0.7, so a few
are ten times as long as most: more epochs, larger networks), its seeds differ by 5 %; what the lab knows beforehand is the cell's length, wrong
by 10 %. Three worlds:

- ``calm``: a slot is a GPU, nothing fails;
- ``failures``: a worker dies once in 100 slot hours; the work since the last epoch (a twelfth of the trial) is lost, the slot is away for 3 min;
- ``memory``: two slots share a GPU of 80 GiB, a trial needs 8 to 60 GiB by its cell (known beforehand), longer cells more.

The rivals start what is next in the order of the study: ``FIFO``, Ray Tune's rule, puts a lost trial at its old place, so before all that wait;
``shell loop`` (xargs -P) starts the next line, and what was lost in a second pass, after all others. In ``memory`` both wait until there is
room for the next one; the rule without it would die. All see the same lengths and deaths, and go on from the last epoch. Not in it: Ray's and
the processes' own costs per trial, which ``benchmarks/sweep.py`` measures.

``wall / bound``: bound is the longest trial, or all work / slots, or (in ``memory``) GiB hours / GiB, whichever is most; nothing can end before
it. ``wall / ideal``: ideal is work / slots alone. Decisions: processor seconds of every call into the dispatcher, its making included; fitted
exponents are least squares of log(seconds) over log(trials or slots).

``loop``: the real :class:`salt_lab.schedule.ray_loop.Loop` on a fake clock with a pool of plain data: its processor time per event, and that of
its look at the heartbeats (a file's time per running trial), taken once in 5 s; Ray's own ``wait`` is not in it.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from saving import check_machine, save

from salt_lab.schedule.decisions import Need, Policy, Start
from salt_lab.schedule.dispatch import UNKNOWN, Dispatcher
from salt_lab.schedule.places import Slot
from salt_lab.schedule.simulation import Attempt, play

TRIALS, SLOTS = (100, 1_000, 10_000), (10, 50, 200, 1_000)
WORLDS = ("calm", "failures", "memory")
SEEDS, GPU_GB, HOUR, EPOCHS = 5, 80.0, 3600.0, 12
HOURS_TO_A_DEATH, AWAY_S = 100.0, 180.0
TRUSTING = Policy(avoid_after=10**9)


class Study(NamedTuple):
    """Made trials: id -> true seconds, and what is known of each beforehand."""

    seconds: dict[str, float]
    needs: dict[str, Need]


def made_study(trials: int, world: str) -> Study:
    """Cells of :data:`SEEDS` trials in the study's order, seeds innermost."""
    chance = random.Random(trials)
    seconds, needs = {}, {}
    for cell in range(-(-trials // SEEDS)):
        hardness = chance.gauss(0, 1)
        length = 4 * HOUR * math.exp(0.7 * hardness)
        memory = min(60.0, max(8.0, 24.0 * math.exp(0.4 * hardness + chance.gauss(0, 0.3)))) if world == "memory" else None
        known = Need(memory, length * math.exp(chance.gauss(0, 0.1)))
        for seed in range(min(SEEDS, trials - cell * SEEDS)):
            seconds[f"{cell}-{seed}"], needs[f"{cell}-{seed}"] = length * math.exp(chance.gauss(0, 0.05)), known
    return Study(seconds, needs)


def made_slots(count: int, world: str) -> list[Slot]:
    """Nodes of 8 GPUs; in ``memory`` a GPU has two slots."""
    share = 2 if world == "memory" else 1
    return [Slot(f"slot {n}", (f"gpu {n // share}",), (f"node {n // share // 8}",), GPU_GB) for n in range(count)]


def attempts(study: Study, world: str) -> Callable[[Start], Attempt]:
    """What becomes of each start; a trial's deaths are the same whoever starts it."""
    done: dict[str, float] = {}
    count: dict[str, int] = {}

    def attempt(start: Start) -> Attempt:
        name, whole = start.trial_id, study.seconds[start.trial_id]
        count[name] = count.get(name, 0) + 1
        left = whole - done.get(name, 0.0)
        dies = random.Random(f"{name} {count[name]}").expovariate(1 / (HOURS_TO_A_DEATH * HOUR)) if world == "failures" else math.inf
        if dies >= left or count[name] > 3:  # the fourth death would be no longer forgiven
            return Attempt(left)
        done[name] = (done.get(name, 0.0) + dies) // (whole / EPOCHS) * (whole / EPOCHS)
        return Attempt(dies, "killed", AWAY_S)

    return attempt


class InOrder(Dispatcher):
    """The rivals: one queue in the study's order, whose next trial waits until there is room for it; no node is avoided."""

    lost_last = False

    def _enqueue(self, trial_id: str, first: bool = False) -> None:
        trial = self._trials[trial_id]
        trial.last_node = None
        heapq.heappush(self._queues.setdefault(UNKNOWN, []), (self.lost_last and first, trial.order, trial_id))


class ShellLoop(InOrder):
    """What was lost goes to the end of the line."""

    lost_last = True


class Timed:
    """Adds up the processor seconds of every call to what it wraps."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.seconds, self.most = 0.0, 0.0
        self._inner = self._timed(make)()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._timed(value) if callable(value) else value

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            began = time.process_time()
            answer = call(*args)
            took = time.process_time() - began
            self.seconds, self.most = self.seconds + took, max(self.most, took)
            return answer

        return timed


def deciders(study: Study) -> dict[str, Callable[[], Any]]:
    """Who chooses: name -> how it is made."""
    names = list(study.seconds)
    return {
        "ours": lambda: Dispatcher(names, study.needs.__getitem__),
        "ours, lengths unknown": lambda: Dispatcher(names, lambda name: Need(study.needs[name].memory_gb)),
        "FIFO": lambda: InOrder(names, study.needs.__getitem__, TRUSTING),
        "shell loop": lambda: ShellLoop(names, study.needs.__getitem__, TRUSTING),
    }


def run(world: str, trials: int, slots: int) -> list[dict[str, Any]]:
    """A row for each way to choose."""
    study, places, rows = made_study(trials, world), made_slots(slots, world), []
    work, longest = sum(study.seconds.values()), max(study.seconds.values())
    room = len({place.devices for place in places}) * GPU_GB
    filled = sum(study.seconds[name] * (need.memory_gb or 0.0) for name, need in study.needs.items()) / room
    for way, make in deciders(study).items():
        chooser = Timed(make)
        played = play(chooser, places, attempts(study, world))
        row = {"world": world, "trials": trials, "slots": slots, "way": way, "hours": played.end / HOUR, "starts": played.starts}
        row |= {"wall_over_bound": played.end / max(longest, work / slots, filled), "wall_over_ideal": played.end * slots / work}
        row |= {"decision_s": chooser.seconds, "decision_us_per_event": 1e6 * chooser.seconds / played.events}
        rows.append(row | {"longest_decision_ms": 1e3 * chooser.most, "busy_share": played.busy / (played.end * slots)})
    return rows


class MadePool:
    """A pool of plain data on a fake clock: slots that are there from the start, trials that end when their seconds are over."""

    def __init__(self, slots: list[Slot], seconds: dict[str, float], outcome: Any, event: Any) -> None:
        self.ready = self.room = len(slots)
        self.now, self._slots, self._seconds, self._outcome = 0.0, {slot.name: slot for slot in slots}, seconds, outcome
        self._event, self._joining = event, slots
        self._due: list[tuple[float, str]] = []

    def monotonic(self) -> float:
        """The fake clock."""
        return self.now

    def resize(self, wanted: int, waiting: int, now: float) -> None:
        """All are there."""

    def start(self, slot: str, job: Any, root: Path, where: dict[str, Any]) -> None:
        """It ends when its time is over."""
        heapq.heappush(self._due, (self.now + self._seconds[job.trial_id], slot))

    def events(self, seconds: float) -> list[Any]:
        """The slots at first, then the next end."""
        if self._joining:
            joining, self._joining = self._joining, []
            return [self._event("joined", slot) for slot in joining]
        self.now, name = heapq.heappop(self._due)
        return [self._event("ended", self._slots[name], self._outcome)]


def run_loop(trials: int, slots: int) -> dict[str, Any]:
    """The real loop: processor microseconds per event without the look at all heartbeats, and milliseconds of such a look."""
    from salt_lab.record.store import Store
    from salt_lab.schedule import ray_loop
    from salt_lab.schedule.interrupts import Interrupt
    from salt_lab.schedule.ray_executor import RayExecutor
    from salt_lab.schedule.ray_pool import Event
    from salt_lab.schedule.ray_worker import Outcome

    study, looks = made_study(trials, "calm"), list[float]()

    class Loop(ray_loop.Loop):
        def _feel_the_pulse(self, now: float) -> None:
            if self.dispatcher.running and len(looks) < 5:
                began = time.process_time()
                super()._feel_the_pulse(now)
                looks.append(time.process_time() - began)

    pool = MadePool(made_slots(slots, "calm"), study.seconds, Outcome("done"), Event)
    executor = RayExecutor(hang_seconds=1e9, need_of=lambda job: study.needs[job.trial_id])
    jobs: list[Any] = [SimpleNamespace(trial_id=name) for name in study.seconds]
    closings: dict[str, Any] = {job.trial_id: SimpleNamespace(settle=lambda: True) for job in jobs}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ray_loop, "time", pool):
        began = time.process_time()
        Loop(executor, pool, jobs, closings, Store(Path(folder)), {}).run(Interrupt())  # type: ignore[arg-type]
        per_event = 1e6 * (time.process_time() - began - sum(looks)) / trials
    return {"trials": trials, "slots": slots, "us_per_event": per_event, "ms_per_look": 1e3 * max(looks), "hours": pool.now / HOUR}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Least squares of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of our decisions, by world: all seconds over trials on the most slots, and microseconds per event over slots with the most trials."""
    found = {}
    for world in WORLDS:
        ours = [row for row in rows if row["world"] == world and row["way"] == "ours"]
        most_trials, most_slots = (max(row[key] for row in ours) for key in ("trials", "slots"))
        over_trials = sorted((row["trials"], row["decision_s"]) for row in ours if row["slots"] == most_slots)
        over_slots = sorted((row["slots"], row["decision_us_per_event"]) for row in ours if row["trials"] == most_trials)
        found[world] = {
            "seconds over trials": exponent(*zip(*over_trials, strict=True)),
            "per event over slots": exponent(*zip(*over_slots, strict=True)),
        }
    return found


def table(rows: list[dict[str, Any]], loops: list[dict[str, Any]], fits: dict[str, dict[str, float]]) -> str:
    """As markdown."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = ["# A study's wall time and its decisions, simulated", ""]
    lines += [
        "Made by `python benchmarks/scaling_study.py`; its first lines say what is simulated. Wall time / bound (/ ideal = work / slots):",
        "",
    ]
    lines += [
        f"| world | trials | slots | {' | '.join(ways)} | our decisions, s | µs per event | longest, ms |",
        "|---" * (len(ways) + 6) + "|",
    ]
    for start in range(0, len(rows), len(ways)):
        group = rows[start : start + len(ways)]
        cells = [f"{row['wall_over_bound']:.3f} ({row['wall_over_ideal']:.2f})" for row in group]
        first = group[0]
        numbers = [f"{first['decision_s']:.3f}", f"{first['decision_us_per_event']:.0f}", f"{first['longest_decision_ms']:.1f}"]
        lines.append(f"| {' | '.join([first['world'], str(first['trials']), str(first['slots']), *cells, *numbers])} |")
    lines += ["", "| our decisions | exponent of all seconds over trials | of the time per event over slots |", "|---|---|---|"]
    lines += [f"| {world} | {' | '.join(f'{value:.2f}' for value in fit.values())} |" for world, fit in fits.items()]
    lines += ["", "The real loop (`calm`): an event with its decision, and the look at all running trials' heartbeats, once in 5 s:", ""]
    lines += ["| trials | slots | µs per event | ms per look |", "|---|---|---|---|"]
    lines += [f"| {one['trials']} | {one['slots']} | {one['us_per_event']:.0f} | {one['ms_per_look']:.1f} |" for one in loops]
    lines += [
        "",
        "Where there are as many slots as trials or nearly so, the longest trial is the bound and every order is as good. What limits",
    ]
    lines += [
        "a decision: a step through heaps of queues (one per need, rounded up to 0.25 GiB) and of free places; no bytes, no arithmetic."
    ]
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], fits: dict[str, dict[str, float]], path: Path) -> None:
    """Wall / bound against slots for each number of trials, ours and FIFO; decisions per event against slots, and in all against trials."""
    import matplotlib.pyplot as plt

    from salt_lab.report.style import house_style, look

    with house_style():
        figure, panels = plt.subplots(2, 2, figsize=(6.8, 5.0), layout="constrained")
        for panel, world in zip(panels[0], ("failures", "memory"), strict=True):
            for number, trials in enumerate(sorted({row["trials"] for row in rows})):
                for way, dash in (("ours", "-"), ("FIFO", ":")):
                    mine = [row for row in rows if (row["world"], row["trials"], row["way"]) == (world, trials, way)]
                    label, style = f"{way}, {trials:,} trials", look(number)
                    panel.plot(*_columns(mine, "slots", "wall_over_bound"), style.marker, ls=dash, color=style.colour, label=label)
            panel.set(xscale="log", xlabel="slots", ylabel="wall time / bound", title=f"world: {world}")
            panel.set_ylim(0.97, 1.0 + 1.5 * (panel.get_ylim()[1] - 1.0))
            panel.legend(ncols=2, loc="upper left")
        for number, world in enumerate(WORLDS):
            ours, style = [row for row in rows if row["world"] == world and row["way"] == "ours"], look(number)
            most_trials, most_slots = (max(row[key] for row in ours) for key in ("trials", "slots"))
            by_slots = [row | {"ms": row["decision_us_per_event"] / 1000} for row in ours if row["trials"] == most_trials]
            by_trials = [row for row in ours if row["slots"] == most_slots]
            both = zip(fits[world].values(), (panels[1, 1], panels[1, 0]), strict=True)
            labels = {panel: f"{world}: exponent {value:.2f}" for value, panel in both}
            look_of = dict(marker=style.marker, color=style.colour, ls=style.dash)
            panels[1, 0].plot(*_columns(by_slots, "slots", "ms"), label=labels[panels[1, 0]], **look_of)
            panels[1, 1].plot(*_columns(by_trials, "trials", "decision_s"), label=labels[panels[1, 1]], **look_of)
        panels[1, 0].set(
            xscale="log",
            yscale="log",
            xlabel="slots",
            ylabel="ms per event",
            ylim=(0.01, 1),
            title=f"our decisions, {most_trials:,} trials",
        )
        panels[1, 1].set(xscale="log", yscale="log", xlabel="trials", ylabel="s in all", title=f"our decisions, {most_slots:,} slots")
        for panel in panels[1]:
            panel.legend()
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)


def _columns(rows: list[dict[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [row[y] for row in rows]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="A study's wall time and its decisions, simulated to 10,000 trials on 1,000 slots.")
    parser.add_argument("--output", type=Path, help="folder for scaling_study.json, .md and .png; none = print only")
    parser.add_argument("--trials", type=int, nargs="+", default=TRIALS)
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    wanted = parser.parse_args()
    if wanted.output:
        check_machine(wanted.output / "scaling_study.json")
    began = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for world in WORLDS:
        rows += [row for trials in wanted.trials for slots in wanted.slots for row in run(world, trials, slots)]
        print(f"{world}: {time.perf_counter() - began:.0f} s", flush=True)
    loops = [run_loop(1_000, slots) for slots in wanted.slots]
    fits, took = exponents(rows), time.perf_counter() - began
    text = table(rows, loops, fits)
    print(text, f"\n{took:.0f} s")
    if wanted.output:
        command = (
            f"python benchmarks/scaling_study.py --trials {' '.join(map(str, wanted.trials))} --slots {' '.join(map(str, wanted.slots))}"
        )
        save(
            wanted.output, "scaling_study", {"command": command, "took_seconds": took, "rows": rows, "loop": loops, "exponents": fits}, text
        )
        draw(rows, fits, wanted.output / "scaling_study.png")


if __name__ == "__main__":
    main()
