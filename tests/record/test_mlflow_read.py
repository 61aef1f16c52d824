"""A table from MLflow alone: the records that come back are those that were delivered."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from salt_lab.errors import StoreError
from salt_lab.record import Store
from salt_lab.record.folded import brief
from salt_lab.record.mlflow_read import mlflow_records
from salt_lab.record.mlflow_store import MlflowStore, stored_runs, sync

A, B = "a" * 12, "b" * 12


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One SQLite store for all tests; every test has an experiment of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowStore(Store(folder), found := f"sqlite:///{folder}/mlflow.db")
    return found


@pytest.fixture
def delivered(named_lab, uri):
    launch = named_lab.launch()
    named_lab.train(0, launch)
    named_lab.begin(1, launch, range(1, 2)).failed("no memory")
    named_lab.store.set_aside(A, 1)
    time.sleep(0.01)
    named_lab.finish(named_lab.begin(0, launch, range(1, 3)), ap=33.0)
    assert not sync(named_lab.store, uri).failures
    return named_lab


def test_a_run_is_the_record_that_was_delivered_without_its_curves_and_sizes(delivered, uri):
    found = mlflow_records(uri, delivered.study.name)
    assert set(found) == {A, B}
    for trial_id, record in found.items():
        truth = brief(delivered.store.record(trial_id))
        fields = dict.fromkeys(("epochs", "evals", "rungs", "built", "cost", "provenance", "resources", "started", "time"))
        assert replace(record, **fields) == replace(truth, **fields)
        assert record.built["effective"] == truth.built["effective"]
        assert all(record.cost[name] == truth.cost[name] for name in record.cost) and "parameters" in record.cost
        assert {key: record.provenance[key] for key in ("git_commit", "git_dirty")} == {"git_commit": "1a2b3c4d", "git_dirty": True}
        assert record.time == pytest.approx(truth.time, abs=0.001)
    assert (found[A].metrics["AP"], found[A].metrics["APl"], found[A].number) == (33.0, None, 2)
    assert (found[B].state, found[B].reason, found[B].metrics) == ("failed", "no memory", None)


def test_the_tables_read_directly_say_what_mlflows_own_client_says(delivered, uri):
    from salt_lab.record.mlflow_read import _sqlite_runs

    ours = {run.run_id: run for run in _sqlite_runs(uri, delivered.study.name)}
    assert ours == {run.run_id: run for run in stored_runs(uri, delivered.study.name)} and len(ours) == 4


def test_a_run_that_was_deleted_in_mlflow_is_not_there(delivered, uri):
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=uri).delete_run(mlflow_records(uri, delivered.study.name)[B].run_id)
    assert set(mlflow_records(uri, delivered.study.name)) == {A}


def test_what_is_missing_is_named(uri, tmp_path):
    with pytest.raises(StoreError, match="has no experiment 'nope'. Deliver the study first"):
        mlflow_records(uri, "nope")
    with pytest.raises(StoreError, match=r"no\.db is not there. Deliver the records first"):
        mlflow_records(f"sqlite:///{tmp_path}/no.db", "nope")
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="cannot be read .no such table: experiments.. Is it MLflow's database"):
        mlflow_records(f"sqlite:///{tmp_path}/empty.db", "nope")
    assert not (tmp_path / "no.db").exists()
