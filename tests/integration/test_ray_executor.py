"""The Ray executor keeps the contract that the serial one keeps, and what only separate processes can: dying, and sharing a machine."""

from __future__ import annotations

import os

import pytest

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.testing import fake_trial
from salt_lab.testing.executor_contract import FAKE, ExecutorContract, make_job, no_tick

pytestmark = [pytest.mark.integration]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def one_ray_for_all():
    """An embedded Ray of the executor's own making; each test's executor finds it open and leaves it open."""
    from salt_lab.schedule.ray_cluster import RayConnection

    connection = RayConnection.open("local")
    yield
    connection.close()
    ray.shutdown()


@pytest.fixture(autouse=True)
def ray_is_there():
    """An interrupted study ends Ray, so the test after one starts it again."""
    from salt_lab.schedule.ray_cluster import RayConnection

    RayConnection.open("local")


class TestRayExecutor(ExecutorContract):
    def make_executor(self, **options):
        return RayExecutor(trial_fn=FAKE, **options)

    def test_each_trial_has_a_process_and_the_cores_that_it_asked_for(self, tmp_path):
        store, jobs = Store(tmp_path), [make_job(seed) for seed in (1, 2)]
        RayExecutor(trial_fn=FAKE, cpus_per_trial=2).run(jobs, store, "s", "l", no_tick)
        seen = [store.record(job.trial_id).built["effective"] for job in jobs]
        assert len({os.getpid(), *(s["pid"] for s in seen)}) == 3
        assert all((s["threads"], s["omp"], s["device"], s["cwd"]) == (2, "2", "cpu", os.getcwd()) for s in seen)

    def test_two_trials_run_at_a_time_on_two_cores(self, tmp_path):
        store, jobs, most = Store(tmp_path), [make_job(fake_trial.SLOW, epochs=n) for n in (4, 5)], []
        RayExecutor(trial_fn=FAKE).run(jobs, store, "s", "l", lambda: most.append(sum(store.is_running(j.trial_id) for j in jobs)))
        assert max(most) == 2 if ray.cluster_resources()["CPU"] >= 2 else max(most) == 1

    def test_a_trial_whose_worker_is_killed_once_goes_on_from_its_checkpoint_and_one_that_dies_again_is_failed(self, tmp_path):
        store, once, always, well = Store(tmp_path), make_job(fake_trial.DIES_ONCE), make_job(fake_trial.DIES), make_job(1)
        records = self.run(store, once, always, well)
        assert [record.state for record in records] == ["done", "failed", "done"]
        assert [record.attempt for record in records] == [2, 2, 1]
        starts = [line["resumed_epoch"] for line in store.journal(once.trial_id).read() if line["event"] == "start"]
        assert starts == [0, 1]
        assert "worker process died 2 times" in records[1].reason

    def test_a_trial_larger_than_any_node_is_refused_before_it_waits_for_ever(self, tmp_path):
        with pytest.raises(UserError, match=r"cpus_per_trial = 999 .* the Ray cluster has 1 node with \d+ CPUs"):
            RayExecutor(cpus_per_trial=999, trial_fn=FAKE).check()

    def test_tunes_own_files_are_kept_under_the_store(self, tmp_path):
        self.run(Store(tmp_path), make_job(1), launch_id="launch-7")
        assert (tmp_path / "ray" / "launch-7").is_dir()
