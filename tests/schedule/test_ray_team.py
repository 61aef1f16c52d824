"""The workers of one slot: where they are makes the slot. No Ray: what it would answer is handed over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from salt_lab.schedule.ray_team import Team
from salt_lab.schedule.ray_worker import Whereabouts


def settled(*where: Whereabouts, memory_of: dict[str, float] | None = None):
    answers = {f"ref {rank}": one for rank, one in enumerate(where)}
    team = Team(SimpleNamespace(get=answers.__getitem__), "slot", [object()] * len(where), refs=list(answers))
    for ref in answers:
        team.take_in(ref, now=0.0)
    return team.settle(memory_of or {}, now=0.0)


@pytest.mark.parametrize("sizes", [(80.0, 24.0), (24.0, 80.0), (24.0, None)])
def test_a_gang_fits_what_its_smallest_gpu_holds(sizes: tuple[float | None, ...]) -> None:
    slot = settled(*(Whereabouts(f"node{rank}", 1, "", gpus=("0",), memory_gb=size) for rank, size in enumerate(sizes)))
    assert slot.memory_gb == 24.0 and slot.devices == ("node0/gpu 0", "node1/gpu 0")


def test_without_gpus_it_is_the_smallest_node() -> None:
    slot = settled(Whereabouts("large", 1, ""), Whereabouts("small", 2, ""), memory_of={"large": 64.0, "small": 16.0})
    assert slot.memory_gb == 16.0 and slot.devices == ("large", "small")


def test_memory_that_nobody_knows_stands_in_nobodys_way() -> None:
    assert settled(Whereabouts("node", 1, "", gpus=("0",))).memory_gb is None
