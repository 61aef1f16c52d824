"""Where trials can run: slots, the devices under them, what is free on each, and which nodes are not to be trusted for a while.

Pure bookkeeping, no Ray. All lookups are by heap or index: a thousand slots and ten thousand trials take seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from salt_lab.schedule.decisions import Device

#: Two sums of the same memory needs differ by rounding, GiB.
ROUNDING = 1e-6
#: What has this share of the largest slot's memory counts as large as it **(ours)**: machines of one kind differ a little.
ALIKE = 0.9


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time.

    Attributes:
        name: unique.
        devices: one entry for each of its workers: the GPU that the worker computes on, or its node where it has none. Slots that share a
            device share its memory.
        nodes: the machines that its workers are on.
        memory_gb: memory of each device, GiB; None = unknown, so it never stands in the way.
    """

    name: str
    devices: tuple[str, ...]
    nodes: tuple[str, ...]
    memory_gb: float | None = None


@dataclass
class Places:
    """All slots, free and taken.

    Args:
        avoid_after: losses of a node within ``avoid_seconds`` after which it gets no new trial for as long, if there are other nodes.
        avoid_seconds: seconds.
        away_seconds: seconds for which memory that has left is still reckoned with: most slots come back.
    """

    avoid_after: int = 2
    avoid_seconds: float = 300.0
    away_seconds: float = 900.0
    slots: dict[str, Slot] = field(default_factory=dict)
    _devices: dict[str, Device] = field(default_factory=dict)
    _free: dict[tuple[str, ...], list[str]] = field(default_factory=lambda: defaultdict(list))
    _sites: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    _taken: dict[str, float | None] = field(default_factory=dict)
    _heap: list[tuple[float, int, tuple[str, ...]]] = field(default_factory=list)
    _losses: dict[str, list[float]] = field(default_factory=dict)
    _nodes: Counter[str] = field(default_factory=Counter)
    _avoided: frozenset[str] = frozenset()
    _holds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _least: float | None = None
    _sizes: dict[str, float] = field(default_factory=dict)  # slot -> memory that each of its workers has where nothing else runs, GiB
    _away: dict[float, float] = field(default_factory=dict)  # size of slots that left -> until when it is reckoned with
    _largest: float = 0.0

    def join(self, slot: Slot) -> None:
        """A new, free slot."""
        self._least = None
        self.slots[slot.name] = slot
        self._nodes.update(set(slot.nodes))
        for name in slot.devices:
            device = self._devices.setdefault(name, Device(math.inf if slot.memory_gb is None else slot.memory_gb))
            device.workers += 1
            self._sites[name].add(slot.devices)
        size = self._sizes[slot.name] = self._size(slot.devices)
        self._largest = max(self._largest, size)
        self._free[slot.devices].append(slot.name)
        self._changed(slot.devices)

    def leave(self, name: str) -> None:
        """The slot is no more; a trial on it must have been released."""
        slot = self.slots.pop(name, None)
        if slot is None:
            return
        if name in self._free[slot.devices]:
            self._free[slot.devices].remove(name)
        self._nodes.subtract(set(slot.nodes))
        self._least = None
        self._away[self._sizes.pop(name)] = math.inf  # the next look at the clock says until when
        for trial_id in [one for one, site in self._holds.items() if site == slot.devices]:
            if all(other.devices != slot.devices for other in self.slots.values()):
                self.let_go(trial_id)
        for device in slot.devices:
            self._devices[device].workers -= 1
            if not self._devices[device].workers:
                del self._devices[device], self._sites[device]
        self._changed(slot.devices)

    def take(self, name: str, memory_gb: float | None) -> None:
        """A trial starts on a free slot."""
        slot = self.slots[name]
        self._free[slot.devices].remove(name)
        self._taken[name] = memory_gb
        self._use(slot.devices, memory_gb, +1)

    def release(self, name: str) -> None:
        """The slot's trial has ended."""
        slot = self.slots[name]
        self._free[slot.devices].append(name)
        self._use(slot.devices, self._taken.pop(name), -1)

    def find(self, memory_gb: float | None, not_on: str | None = None) -> str | None:
        """The free slot with the most room, if a trial of this need fits there; rather not on the node ``not_on``, if others are free."""
        aside, second, chosen = [], None, None
        while self._heap and chosen is None:
            entry = heapq.heappop(self._heap)
            site = entry[2]
            if entry != self._entry(site):
                continue  # something has changed there since, and another entry says how it is now
            aside.append(entry)
            slot = self._usable(site)
            if slot is not None and self._fits(site, memory_gb):
                if not_on in self.slots[slot].nodes:
                    second = second or slot
                else:
                    chosen = slot
            elif -entry[0] + ROUNDING < (self._least_share() if memory_gb is None else memory_gb):
                break  # the others have less room
        for entry in set(aside):
            heapq.heappush(self._heap, entry)
        return chosen or second

    def hold(self, trial_id: str) -> str | None:
        """Keep the devices of a slot free for a trial that has to run alone: of the largest known ones the least busy, or the first that
        comes back where all of them are away or kept for others. The slot, once nothing runs there."""
        site, enough = self._holds.get(trial_id), ALIKE * self._largest
        if site is not None and self._size(site) < enough:
            self.let_go(trial_id)
            site = None
        if site is None:
            large = [one for one in self.slots.values() if self._sizes[one.name] >= enough]
            usable = [one for one in large if not self._avoids(one) and not self._held(one.devices)]
            slot = min(usable, key=self._crowd, default=None)
            if slot is None:
                return None
            site = self._holds[trial_id] = slot.devices
            for name in set(site):
                self._devices[name].held_for = trial_id
        busy = any(self._devices[name].running for name in site)
        return None if busy else next(iter(self._free[site]), None)

    def let_go(self, trial_id: str) -> None:
        """The trial that had to run alone has ended."""
        site = self._holds.pop(trial_id, ())
        for name in site:
            if name in self._devices and self._devices[name].held_for == trial_id:
                self._devices[name].held_for = None
        self._changed(site)

    def shared(self, name: str) -> bool:
        """Can another trial run on a device of this slot?"""
        slot = self.slots[name]
        return any(self._devices[device].workers > slot.devices.count(device) for device in slot.devices)

    def ever_fits(self, memory_gb: float) -> bool:
        """Is there a slot whose workers could have so much, or was there a short while ago?"""
        return self._largest + ROUNDING >= memory_gb

    def has_larger(self, name: str) -> bool:
        """Is there a slot with clearly more memory than this one, or was there a short while ago?"""
        return self._sizes[name] < ALIKE * self._largest

    def lost_on(self, nodes: tuple[str, ...], now: float, times: int = 1) -> None:
        """A trial was lost on these machines; ``times`` > 1 where that says more than chance would."""
        for node in set(nodes):
            recent = [time for time in self._losses.get(node, []) if time > now - self.avoid_seconds]
            self._losses[node] = recent + [now] * times

    def look_at_the_clock(self, now: float) -> None:
        """Which nodes are avoided from now on: those with many recent losses, unless there are no others. And what is away for too long."""
        if self._losses:
            self._avoid(now)
        if self._away:
            kept = {size: min(until, now + self.away_seconds) for size, until in self._away.items() if until > now}
            gone, self._away = len(kept) < len(self._away), kept
            if gone:
                self._largest = max([*self._sizes.values(), *kept], default=0.0)

    def _avoid(self, now: float) -> None:
        since = now - self.avoid_seconds
        self._losses = {node: kept for node, times in self._losses.items() if (kept := [time for time in times if time > since])}
        bad = frozenset(node for node, times in self._losses.items() if len(times) >= self.avoid_after)
        others = bool(bad) and any(count > 0 and node not in bad for node, count in self._nodes.items())
        self._avoided = bad if others else frozenset()

    def _crowd(self, slot: Slot) -> tuple[int, float]:
        """Many trials and little memory stand in the way of one that has to run alone."""
        return sum(self._devices[name].running for name in slot.devices), -self._sizes[slot.name]

    def _usable(self, site: tuple[str, ...]) -> str | None:
        slot = next((self.slots[name] for name in self._free[site][-1:]), None)
        return None if slot is None or self._held(site) or self._avoids(slot) else slot.name

    def _avoids(self, slot: Slot) -> bool:
        return bool(self._avoided) and not self._avoided.isdisjoint(slot.nodes)

    def _held(self, site: tuple[str, ...]) -> bool:
        return any(self._devices[name].held_for is not None for name in site)

    def _need(self, site: tuple[str, ...], memory_gb: float | None) -> float:
        return max(self._devices[name].share for name in site) if memory_gb is None else memory_gb

    def _least_share(self) -> float:
        """The smallest share that a trial of unknown need could ask for."""
        if self._least is None:
            self._least = min((device.share for device in self._devices.values()), default=0.0)
        return self._least

    def _size(self, site: tuple[str, ...]) -> float:
        """Memory that each worker of a trial may take there if nothing else runs, GiB."""
        return min(self._devices[name].memory_gb / site.count(name) for name in site)

    def _room(self, site: tuple[str, ...]) -> float:
        """Memory that each worker of one more trial may take there, GiB."""
        return min(self._devices[name].room / site.count(name) for name in site)

    def _fits(self, site: tuple[str, ...], memory_gb: float | None) -> bool:
        return self._room(site) + ROUNDING >= self._need(site, memory_gb)

    def _use(self, site: tuple[str, ...], memory_gb: float | None, sign: int) -> None:
        for name in site:
            self._devices[name].used += sign * (memory_gb or 0.0)
            self._devices[name].unknown += sign * (memory_gb is None)
        for name in set(site):
            self._devices[name].running += sign
        self._changed(site)

    def _changed(self, devices: tuple[str, ...]) -> None:
        """Tell the heap how the sites on these devices are now."""
        for site in {site for name in set(devices) for site in self._sites.get(name, ())}:
            if (entry := self._entry(site)) is not None:
                heapq.heappush(self._heap, entry)

    def _entry(self, site: tuple[str, ...]) -> tuple[float, int, tuple[str, ...]] | None:
        """The site's place in the heap: most room first, then the least busy; None where no slot is free, or all is kept for one trial."""
        if not self._free.get(site) or any(name not in self._devices for name in site) or self._held(site):
            return None
        return (-self._room(site), sum(self._devices[name].running for name in site), site)
