"""Which Ray is meant, what it can hold, and what a worker shares with the driver; none of it needs a running Ray."""

from __future__ import annotations

import os

import pytest

from salt_lab.errors import UserError
from salt_lab.schedule.executor import Job
from salt_lab.schedule.ray_cluster import RayConnection, existing_address, probe, teams_that_fit
from salt_lab.schedule.ray_executor import RayExecutor
from salt_lab.schedule.ray_worker import Surroundings
from salt_lab.spec.resources import Resources
from salt_lab.spec.trial import Trial


@pytest.mark.parametrize(
    ("asked", "variable", "meant"),
    [
        (None, None, None),
        (None, "", None),
        ("local", "10.0.0.1:6379", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("auto", "10.0.0.1:6379", "auto"),
    ],
)
def test_an_address_goes_before_the_variable_and_without_both_ray_is_embedded(monkeypatch, asked, variable, meant):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert existing_address(asked) == meant


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_noticed_in_seconds(address):
    with pytest.raises(OSError, match="refused"):
        probe(address)


def test_a_dashboards_address_is_told_from_a_clusters():
    with pytest.raises(ValueError, match="ray job submit"):
        probe("http://127.0.0.1:8265")


def cluster(*nodes):
    return RayConnection(ray=None, owned=False, embedded=False, nodes=list(nodes))


def test_a_worker_must_fit_on_one_node_for_two_half_nodes_do_not_make_one():
    two = cluster({"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0})
    two.refuse_what_never_fits(Resources(cpus=4, gpus=1))
    with pytest.raises(UserError, match=r"cpus = 8 for each.* 1 node with 4 CPUs and 0 GPUs, 1 node with 4 CPUs and 1 GPUs"):
        two.refuse_what_never_fits(Resources(cpus=8, gpus=0))


def test_the_workers_of_one_trial_may_be_on_several_nodes():
    two = cluster({"CPU": 4.0, "GPU": 4.0}, {"CPU": 4.0, "GPU": 4.0})
    two.refuse_what_never_fits(Resources(gpus=8))
    with pytest.raises(UserError, match=r"workers = 9, cpus = 1 for each, gpus = 9, but the Ray cluster has 2 nodes"):
        two.refuse_what_never_fits(Resources(gpus=9))


def test_a_gpu_where_there_is_none_is_refused():
    with pytest.raises(UserError, match=r"gpus = 1, but the Ray cluster has 2 nodes with 2 CPUs and 0 GPUs"):
        cluster({"CPU": 2.0}, {"CPU": 2.0}).refuse_what_never_fits(Resources(gpus=1))


@pytest.mark.parametrize(
    ("resources", "trials"),
    [
        ({"gpus": 0.5}, 6),
        ({"gpus": 0.3}, 9),
        ({"gpus": 2}, 1),
        ({"cpus": 3, "gpus": 0}, 4),
        ({"workers": 3, "gpus": 0}, 4),
    ],
)
def test_how_many_trials_fit_is_counted_by_node_for_a_share_is_a_share_of_one_gpu(resources, trials):
    nodes = [{"CPU": 6.0, "GPU": 2.0}, {"CPU": 4.0}, {"CPU": 3.0, "GPU": 1.0}]
    assert teams_that_fit(nodes, Resources(**resources)) == trials


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_concurrent": 0}, "max_concurrent = 0"),
        ({"max_deaths": -1}, "max_deaths = -1"),
        ({"hang_seconds": 0.5}, "hang_seconds = 0.5"),
    ],
)
def test_impossible_limits_are_refused_at_once(options, complaint):
    with pytest.raises(UserError, match=complaint):
        RayExecutor(**options)


def test_a_worker_takes_over_the_folder_the_threads_and_the_variables_that_the_data_names_and_no_others(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BCCD", "/data/bccd")
    monkeypatch.setenv("SECRET", "not for workers")
    data = {"train": "${BCCD}/train.json", "val": "$BCCD/val.json", "images": "${UNSET}/images"}
    shared = Surroundings.of([Job(Trial.model_validate({"data": data}), "0" * 12)], threads=3)
    assert shared.folder == os.getcwd()
    assert shared.variables == {"BCCD": "/data/bccd", "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}


def test_a_worker_on_a_machine_without_that_folder_stays_where_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Surroundings("/no/such/folder", {})()
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize(
    ("nodes", "asked", "taken"),
    [
        ([{"CPU": 8, "GPU": 2}], None, 1),
        ([{"CPU": 8}], None, 0),
        ([{"CPU": 8, "GPU": 2}], 0, 0),
        ([{"CPU": 8, "GPU": 2}], 0.5, 0.5),
    ],
)
def test_a_trial_takes_a_gpu_where_there_are_gpus_unless_said_otherwise(nodes, asked, taken):
    executor = RayExecutor(resources=Resources(gpus=asked))
    executor._connection = RayConnection(ray=None, owned=False, embedded=False, nodes=nodes)
    executor.check()
    assert executor.resources.gpus == taken
