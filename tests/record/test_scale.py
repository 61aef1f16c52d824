"""Many records at once: the cache of folded records says what the journals say, whatever happens to it or to them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from salt_lab.record import Journal, Store, folded, folded_cache
from salt_lab.record.folded import brief, brief_records

A, B = "a" * 12, "b" * 12


@pytest.fixture(autouse=True)
def any_number_is_worth_keeping(monkeypatch):
    monkeypatch.setattr(folded, "WORTH_KEEPING", 1)


@pytest.fixture
def unread(monkeypatch):
    """From when it is called no journal may be read."""
    return lambda: monkeypatch.setattr(Journal, "read", lambda self: pytest.fail(f"{self.path} was read"))


def briefs(lab, study=None):
    return list(brief_records(lab.store, lab.ids, study))


def truth(lab):
    return [brief(lab.store.record(trial_id)) for trial_id in lab.ids]


def cache(lab):
    return lab.store.root / "cache" / "records.sqlite"


def test_they_are_the_records_with_the_latest_epoch_and_evaluation_alone(lab):
    launch = lab.launch()
    lab.train(0, launch)
    lab.begin(1, launch, range(1, 3)).failed("no memory")
    full = lab.store.record(A)
    for _ in range(2):
        found = briefs(lab)
        assert found == truth(lab)
        assert found[0].epochs == {2: full.epochs[2]} and found[0].evals == {2: full.evals[2]}
        assert (found[0].cost, found[0].metrics, found[0].trial) == (full.cost, full.metrics, full.trial)
        assert (found[1].state, found[1].reason) == ("failed", "no memory")


def test_a_record_that_the_cache_knows_is_not_read_again(lab, unread):
    lab.train(0, lab.launch())
    before = briefs(lab)
    unread()
    assert list(brief_records(lab.store, [A])) == before[:1]


def test_what_grows_is_seen(lab):
    recorder = lab.begin(0, lab.launch(), range(1, 2))
    recorder.interrupted("stopped")
    assert briefs(lab)[0].state == "interrupted"
    recorder.start(trial={}, study="s", launch_id="l", data_fingerprint="d", provenance={}, resumed_epoch=1)
    lab.finish(recorder)
    assert briefs(lab) == truth(lab) and briefs(lab)[0].state == "done"


def test_a_trial_that_is_trained_again_is_its_new_record(lab):
    launch = lab.launch()
    lab.train(0, launch)
    briefs(lab)
    lab.store.set_aside(A, 1)
    assert briefs(lab)[0].state == "new"
    lab.finish(lab.begin(0, launch, range(1, 3)), ap=33.0)
    assert [briefs(lab)[0].metrics["AP"], briefs(lab)[0].number] == [33.0, 2]


def test_a_journal_replaced_by_one_of_the_same_length_is_read(lab):
    lab.train(0, lab.launch())
    briefs(lab)
    path = lab.store.journal(A).path
    text = path.read_bytes().replace(b'"AP": 20.0', b'"AP": 21.0')
    path.rename(path.with_name("old"))
    path.write_bytes(text)
    assert briefs(lab)[0].metrics["AP"] == 21.0


def test_whether_a_trial_runs_is_asked_every_time(lab):
    with lab.store.lock(A):
        lab.begin(0, lab.launch(), range(1, 2))
        assert briefs(lab)[0].state == "running"
    assert briefs(lab)[0].state == "interrupted"
    with lab.store.lock(A):
        assert briefs(lab)[0].state == "running"


def test_the_run_id_is_the_one_that_stands_there_now(lab):
    lab.train(0, lab.launch())
    assert briefs(lab)[0].run_id is None
    (lab.store.trial_dir(A) / "mlflow.json").write_text('{"does_salt_help": {"run_id": "r1"}, "other": {"run_id": "r2"}}')
    assert [briefs(lab)[0].run_id, briefs(lab, "other")[0].run_id] == ["r1", "r2"]


@pytest.mark.parametrize("text", [b"", b"no database, and longer than a page's header of a hundred bytes" * 20])
def test_a_damaged_cache_costs_time_and_nothing_else(lab, text, unread):
    lab.train(0, lab.launch())
    briefs(lab)
    cache(lab).write_bytes(text)
    assert briefs(lab) == truth(lab)
    briefs(lab)
    unread()
    assert next(brief_records(lab.store, [A])).state == "done"


def test_a_cache_without_its_table_or_torn_in_the_middle_is_made_anew(lab):
    for i in range(2):
        lab.train(i, lab.launch())
    briefs(lab)
    whole = cache(lab).read_bytes()
    cache(lab).write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    assert briefs(lab) == truth(lab)
    assert briefs(lab) == truth(lab)


def test_a_cache_by_other_code_is_not_believed(lab, monkeypatch):
    lab.train(0, lab.launch())
    briefs(lab)
    with sqlite3.connect(cache(lab)) as database:
        database.execute("UPDATE folded SET record = replace(record, '20.0', '99.0')")
    assert briefs(lab)[0].metrics["AP"] == 99.0, "it is the cache that answers"
    monkeypatch.setattr(folded_cache, "folding_rules", lambda: 12345)
    assert briefs(lab) == truth(lab)


def test_a_folder_that_cannot_hold_a_cache_is_read_all_the_same(lab):
    lab.train(0, lab.launch())
    (lab.store.root / "cache").write_text("a file in the way")
    assert briefs(lab) == truth(lab)


def test_reading_makes_nothing_in_a_small_results_folder(lab, monkeypatch):
    monkeypatch.undo()
    lab.train(0, lab.launch())
    before = sorted(lab.store.root.iterdir())
    assert briefs(lab) == truth(lab)
    assert sorted(lab.store.root.iterdir()) == before


def test_while_another_process_writes_the_cache_the_records_are_right(lab, monkeypatch):
    monkeypatch.setattr(folded_cache, "PATIENCE_SECONDS", 0.01)
    for i in range(2):
        lab.train(i, lab.launch())
    briefs(lab)
    lab.store.set_aside(A, 1)
    lab.train(0, lab.launch())
    with sqlite3.connect(cache(lab)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert briefs(lab) == truth(lab)
    assert briefs(lab) == truth(lab)


@pytest.mark.integration
def test_two_processes_that_fill_the_cache_at_once_leave_it_right(lab):
    for i in range(2):
        lab.train(i, lab.launch())
    code = (
        "import sys; from salt_lab.record import Store, folded; folded.WORTH_KEEPING = 1; store = Store(sys.argv[1])\n"
        "for _ in range(30):\n"
        "    (store.root / 'cache' / 'records.sqlite').unlink(missing_ok=True)\n"
        "    assert [r.state for r in folded.brief_records(store, store.trial_ids())] == ['done', 'done']\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(lab.store.root)], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert briefs(lab) == truth(lab)


def test_a_trial_that_cannot_be_known_is_new(tmp_path):
    assert [record.state for record in brief_records(Store(tmp_path / "none"), ["", A])] == ["new", "new"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "half", [b'{"event": "epoch", "time": 1.0, "losses": {"a": 1}', b'{"event": "epoch", "ti', b'{"event": "epoch"}', b"[1]"]
)
def test_half_a_line_amid_a_journal_is_passed_over_and_no_other_with_it(tmp_path, half):
    journal = Journal(tmp_path / "record.jsonl")
    journal.append("start", attempt=1)
    with journal.path.open("ab") as file:
        file.write(half)
    journal.append("done", epochs=1)
    assert [line["event"] for line in journal.read()] == ["start", "done"]
