"""Worker processes of the Ray executor that the kernel itself kills because memory ran out, inside a memory cgroup."""

from __future__ import annotations

import contextlib
import os

import pytest

from salt_lab.record.store import Store
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.testing.executor_contract import make_job, no_tick
from salt_lab.testing.hungry_trial import hungry, memory_group

pytestmark = [pytest.mark.integration, pytest.mark.slow]
pytest.importorskip("ray")

LIMIT_MIB = 256


@pytest.fixture
def group():
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(memory_group(LIMIT_MIB))
        except OSError as error:
            pytest.skip(f"no memory cgroup can be made here: {error}")
        yield found


@pytest.fixture(scope="module", autouse=True)
def one_ray_for_all():
    from salt_lab.schedule.ray_cluster import RayConnection

    connection = RayConnection.open("local")
    yield
    connection.close()


def reasons(store, job, event):
    return [line["reason"] for line in store.journal(job.trial_id).read() if line["event"] == event]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core, one trial at a time")
def test_of_two_trials_that_do_not_fit_together_the_kernel_kills_one_and_it_is_trained_alone_then(group, tmp_path):
    store, jobs, beside = Store(tmp_path), [make_job(1), make_job(2)], []

    def tick():
        for one, other in (jobs, jobs[::-1]):
            if store.is_running(one.trial_id) and store.record(one.trial_id).attempt == 2:
                beside.append(store.is_running(other.trial_id))

    RayExecutor(trial_fn=hungry(group, LIMIT_MIB * 3 // 5, wait=True)).run(jobs, store, "s", "l", tick)
    records = sorted((store.record(job.trial_id) for job in jobs), key=lambda record: record.attempt)
    assert group.kills == 1
    assert [(record.state, record.attempt) for record in records] == [("done", 1), ("done", 2)]
    killed = next(job for job in jobs if job.trial_id == records[1].trial_id)
    assert reasons(store, killed, "interrupted") == ["it ran out of memory; it is tried once more with nothing else on its device"]
    assert [line["resumed_epoch"] for line in store.journal(killed.trial_id).read() if line["event"] == "start"] == [0, 1]
    assert not any(beside)


def test_a_trial_that_does_not_fit_by_itself_is_killed_twice_and_has_failed_for_memory(group, tmp_path):
    store, job = Store(tmp_path), make_job(3)
    RayExecutor(trial_fn=hungry(group, LIMIT_MIB * 4 // 3, wait=False)).run([job], store, "s", "l", no_tick)
    record = store.record(job.trial_id)
    assert group.kills == 2 and (record.state, record.attempt) == ("failed", 2)
    assert "it ran out of memory, also with nothing else on its device" in record.reason
    assert "schedule.batch" in record.reason, "and what to do"
