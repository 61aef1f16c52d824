"""A cluster of several nodes, each a raylet of its own on this machine, that loses one and gains one while trials run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from salt_lab.record.store import Store
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.testing import fake_trial
from salt_lab.testing.executor_contract import FAKE, make_job

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ray = pytest.importorskip("ray")


@pytest.fixture
def cluster():
    """A head with one core and one more node with one core. Only what is started here is ended here."""
    from salt_lab.schedule.ray_cluster import import_ray

    import_ray()
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def node_of(process: int) -> str:
    """The raylet that started a worker."""
    import psutil

    raylet = next(parent for parent in psutil.Process(process).parents() if "raylet" in parent.name())
    return str(raylet.pid)


def run(cluster, store, jobs, tick):
    RayExecutor(cluster.address, trial_fn=FAKE).run(jobs, store, "nodes", "one", tick)
    return [store.record(job.trial_id) for job in jobs]


def test_a_lost_nodes_trial_goes_on_elsewhere_from_its_checkpoint_and_the_others_do_not_notice(cluster, tmp_path):
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    store, jobs = Store(tmp_path), [make_job(fake_trial.SLOW, epochs=epochs) for epochs in (12, 13)]
    raylet, lost = second.all_processes["raylet"][0].process.pid, []

    def tick():
        records = [store.record(job.trial_id) for job in jobs]
        if not lost and all(len(record.epochs) >= 2 for record in records):
            (victim,) = [r.trial_id for r in records if node_of(r.built["effective"]["pid"]) == str(raylet)]
            lost.append(victim)
            cluster.remove_node(second, allow_graceful=False)

    records = {record.trial_id: record for record in run(cluster, store, jobs, tick)}
    assert {record.state for record in records.values()} == {"done"}
    hit = records.pop(lost[0])
    (spared,) = records.values()
    assert (hit.attempt, spared.attempt) == (2, 1)
    starts = [line["resumed_epoch"] for line in store.journal(hit.trial_id).read() if line["event"] == "start"]
    assert starts[0] == 0 and starts[1] >= 2, "it went on from its last epoch"
    reasons = [line["reason"] for line in store.journal(hit.trial_id).read() if line["event"] == "interrupted"]
    assert reasons == ["the machine that it ran on was lost (death 1, 3 are forgiven)"]


@pytest.fixture
def another_node(cluster):
    """Called: one more node with one core joins, as `ray start` on its machine would have it."""
    import psutil

    started = []

    def join():
        command = [str(Path(sys.executable).parent / "ray"), "start", f"--address={cluster.address}", "--num-cpus=1", "--block"]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    yield join
    for process in started:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        for one in psutil.wait_procs(family, timeout=20)[1]:
            one.kill()


def test_a_node_that_joins_while_trials_wait_is_used(cluster, another_node, tmp_path):
    store, jobs = Store(tmp_path), [make_job(fake_trial.SLOW, epochs=epochs) for epochs in (60, 61)]
    joined = []

    def tick():
        if not joined and any(store.record(job.trial_id).epochs for job in jobs):
            joined.append(another_node())

    records = run(cluster, store, jobs, tick)
    assert [record.state for record in records] == ["done", "done"]
    first, second = sorted(records, key=lambda record: record.started)
    assert second.started < first.time, "the second trial began on the new node before the first had ended"
