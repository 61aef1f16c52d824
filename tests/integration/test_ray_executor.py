"""The Ray executor keeps the contract that the serial one keeps, and what only separate processes can: dying, hanging, and sharing a machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil
import pytest

from salt_lab.errors import UserError
from salt_lab.record.store import Store
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.spec.resources import Resources
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


def events(store, job, *kinds):
    return [line for line in store.journal(job.trial_id).read() if line["event"] in kinds]


def trial_actors():
    """Processes of workers that are still there."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process.pid] if "TrialActor" in process.name() or "TrialActor" in " ".join(process.cmdline()) else []
    return found


class TestRayExecutor(ExecutorContract):
    def make_executor(self, **options):
        return RayExecutor(trial_fn=FAKE, **options)

    def test_each_trial_has_the_cores_that_it_asked_for_and_the_main_thread_of_another_process(self, tmp_path):
        store, jobs = Store(tmp_path), [make_job(seed) for seed in (1, 2)]
        RayExecutor(resources=Resources(cpus=2), trial_fn=FAKE).run(jobs, store, "s", "l", no_tick)
        seen = [store.record(job.trial_id).built["effective"] for job in jobs]
        assert os.getpid() not in {s["pid"] for s in seen}
        assert all((s["threads"], s["omp"], s["device"], s["cwd"], s["main_thread"]) == (2, "2", "cpu", os.getcwd(), True) for s in seen)

    def test_a_worker_stays_warm_and_runs_one_trial_after_another(self, tmp_path):
        """What that saves is measured by benchmarks/sweep.py."""
        store, jobs = Store(tmp_path), [make_job(seed, epochs=1) for seed in range(1, 9)]
        RayExecutor(trial_fn=FAKE, max_concurrent=1).run(jobs, store, "s", "l", no_tick)
        assert len({store.record(job.trial_id).built["effective"]["pid"] for job in jobs}) == 1

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core, one trial at a time")
    def test_two_trials_run_at_a_time_on_two_cores(self, tmp_path):
        store, jobs, sent = Store(tmp_path), [make_job(fake_trial.HANGS, epochs=n) for n in (4, 5)], []

        def tick():
            if not sent and all(store.is_running(job.trial_id) for job in jobs):
                sent.append(os.kill(os.getpid(), signal.SIGTERM))

        with pytest.raises(KeyboardInterrupt):
            self.run(store, *jobs, on_tick=tick)
        assert [store.record(job.trial_id).state for job in jobs] == ["interrupted", "interrupted"]

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a team of two needs two cores")
    def test_a_trial_of_two_workers_has_a_process_for_each_and_goes_on_when_one_is_killed(self, tmp_path):
        store, once, well = Store(tmp_path), make_job(fake_trial.DIES_ONCE), make_job(1)
        team = Resources(workers=2)
        records = self.run(store, well, once, resources=team, rank_fn="salt_lab.testing.fake_trial:fake_rank")
        assert [(record.state, record.attempt) for record in records] == [("done", 1), ("done", 2)]
        assert [record.built["effective"]["workers"] for record in records] == [2, 2]

    def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint_and_one_that_dies_too_often_has_failed(self, tmp_path):
        store, once, always, well = Store(tmp_path), make_job(fake_trial.DIES_ONCE), make_job(fake_trial.DIES), make_job(1)
        records = self.run(store, once, always, well, max_deaths=2)
        assert [record.state for record in records] == ["done", "failed", "done"]
        assert [record.attempt for record in records] == [2, 3, 1]
        assert [line["resumed_epoch"] for line in events(store, once, "start")] == [0, 1]
        assert [line["reason"] for line in events(store, once, "interrupted")] == [
            "its worker process was killed (death 1, 2 are forgiven)"
        ], "each attempt has an end in the journal"
        assert "its worker process was killed; that was death 3, and 2 are forgiven" in records[1].reason

    def test_a_trial_that_gives_no_sign_of_life_is_killed_says_where_it_hung_and_is_started_again(self, tmp_path):
        store, hangs, well = Store(tmp_path), make_job(fake_trial.HANGS_ONCE), make_job(1)
        records = self.run(store, hangs, well, hang_seconds=2)
        assert [record.state for record in records] == ["done", "done"]
        assert records[0].attempt == 2
        assert "no sign of life" in events(store, hangs, "interrupted")[0]["reason"]
        assert "_hang" in (store.trial_dir(hangs.trial_id) / "stacks.log").read_text()

    def test_a_worker_that_is_asked_to_leave_ends_its_trial_in_order_and_another_goes_on_with_it(self, tmp_path):
        store, job, sent = Store(tmp_path), make_job(fake_trial.HANGS_ONCE), []

        def tick():
            record = store.record(job.trial_id)
            if not sent and record.epochs:
                sent.append(os.kill(record.built["effective"]["pid"], signal.SIGTERM))

        (record,) = self.run(store, job, on_tick=tick)
        assert (record.state, record.attempt) == ("done", 2)
        assert [line["reason"] for line in events(store, job, "interrupted")] == ["stopped by the test"], "its own words stand"
        assert len({line["effective"]["pid"] for line in events(store, job, "built")}) == 2

    def test_a_heartbeat_keeps_a_long_trial_alive(self, tmp_path):
        store, job = Store(tmp_path), make_job(fake_trial.SLOW, epochs=8)

        def beat():
            (store.trial_dir(job.trial_id)).mkdir(parents=True, exist_ok=True)
            (store.trial_dir(job.trial_id) / "heartbeat").touch()

        (record,) = self.run(store, job, on_tick=beat, hang_seconds=2)
        assert (record.state, record.attempt) == ("done", 1)

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one slot has the node to itself")
    def test_a_trial_that_ran_out_of_memory_beside_others_is_tried_once_more_alone(self, tmp_path):
        store = Store(tmp_path)
        once, always = make_job(fake_trial.NO_MEMORY_ONCE), make_job(fake_trial.NO_MEMORY)
        others = [make_job(fake_trial.SLOW, epochs=10), make_job(1), make_job(2)]  # while the first runs the second slot joins
        running_beside = []

        def tick():
            if store.record(once.trial_id).attempt == 2 and store.is_running(once.trial_id):
                running_beside.append(sum(store.is_running(job.trial_id) for job in (always, *others)))

        records = self.run(store, others[0], once, always, *others[1:], on_tick=tick)
        assert [record.state for record in records] == ["done", "done", "failed", "done", "done"]
        assert [record.attempt for record in records[1:3]] == [2, 2]
        assert not any(running_beside)

    def test_a_trial_larger_than_any_node_is_refused_before_it_waits_for_ever(self, tmp_path):
        with pytest.raises(UserError, match=r"cpus = 999 for each.* the Ray cluster has 1 node with \d+ CPUs"):
            RayExecutor(resources=Resources(cpus=999), trial_fn=FAKE).check()

    def test_where_no_worker_can_start_the_study_is_refused_with_the_reason(self, tmp_path, monkeypatch):
        def broken(*arguments):
            raise ModuleNotFoundError("No module named 'mmdet'")

        monkeypatch.setattr("salt_lab.schedule.ray_worker.Surroundings.of", lambda jobs, threads: broken)
        monkeypatch.setattr("salt_lab.schedule.ray_pool.MAX_FAILED_STARTS", 2)
        with pytest.raises(UserError, match=r"No worker could start on the Ray cluster, \d times: .*No module named 'mmdet'"):
            self.run(Store(tmp_path), make_job(1))

    def test_ray_keeps_no_files_in_the_store_and_leaves_no_worker_behind(self, tmp_path):
        self.run(Store(tmp_path), make_job(1), launch_id="launch-7")
        assert {path.name for path in tmp_path.iterdir()} == {"trials"}
        deadline = time.monotonic() + 10
        while (workers := trial_actors()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not workers
