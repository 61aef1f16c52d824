"""What ``run`` makes of its options: the study's resources, with the command line's in their place, for either executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from salt_lab.cli.run import choose_executor, choose_resources
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.spec.resources import Resources

NOTHING = {"address": None, "max_concurrent": None, "hang_after": None, "max_deaths": None}


def test_the_studys_resources_reach_ray_with_what_the_command_line_says_instead() -> None:
    resources = choose_resources(Resources(gpus=8, cpus=4), None, None, 2)
    executor = choose_executor("ray", resources, {**NOTHING, "hang_after": 90.0, "max_deaths": 0, "max_concurrent": 3})
    assert isinstance(executor, RayExecutor)
    assert (executor.asked.workers, executor.asked.cpus, executor.asked.gpus) == (2, 4, 2)
    assert (executor.hang_seconds, executor.max_deaths, executor.max_concurrent) == (90.0, 0, 3)


def test_without_options_ray_has_the_documented_limits() -> None:
    executor = choose_executor("ray", Resources(), NOTHING)
    assert isinstance(executor, RayExecutor)
    assert (executor.hang_seconds, executor.max_deaths, executor.max_concurrent, executor.address) == (600.0, 3, None, None)


@pytest.mark.parametrize(
    ("resources", "cpus", "threads", "workers"),
    [(Resources(), None, None, 1), (Resources(), 3, 3, 1), (Resources(cpus=2), None, 2, 1), (Resources(workers=2), None, None, 2)],
)
def test_serial_takes_all_cores_unless_somebody_said_how_many(
    resources: Resources, cpus: int | None, threads: int | None, workers: int
) -> None:
    executor = choose_executor("serial", choose_resources(resources, None, cpus, None), NOTHING)
    assert isinstance(executor, SerialExecutor)
    assert (executor.threads, executor.resources.workers) == (threads, workers)


@pytest.mark.parametrize("name", list(NOTHING))
def test_an_option_of_rays_is_refused_with_serial(name: str) -> None:
    with pytest.raises(click.UsageError, match=f"--{name.replace('_', '-')}: for --executor ray only"):
        choose_executor("serial", Resources(), {**NOTHING, name: 5})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "2", "--gpus-per-trial", "4"), "--gpus-per-trial: each worker has one GPU, so workers = 2 and gpus = 4"),
        (("--gpus-per-trial", "1.5"), "--gpus-per-trial: must be a whole number above 1: 1 or 2"),
        (("resources.gpu=1",), "no key of resources named 'gpu'. Did you mean 'gpus'?"),
        (("resources={workers: 2, gpus: 0.5}",), "a share of a GPU is for one worker"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(
    run: Callable, study: Path, store: Path, words: tuple[str, ...], message: str
) -> None:
    result = run("run", study, *words, "--store", store, "--executor", "serial")
    assert result.exit_code == 2 and message in result.output
    assert not store.exists()
