"""A finished record makes room for a new one and stays whole, whenever the process dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_lab.record import Store, TrialBusy, aside

ID = "a" * 12


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, without the lock."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.fixture
def trained(lab):
    """The lab after trial 0 is done, with a checkpoint."""
    lab.train(0, lab.launch())
    folder = lab.store.trial_dir(ID)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "epoch_2.pth").write_bytes(b"weights")
    (folder / "mlflow.json").write_text('{"does_salt_help": {"run_id": "r1"}}')
    return lab


def test_everything_of_the_record_is_kept_and_the_trial_can_begin_anew(trained):
    store, folder = trained.store, trained.store.trial_dir(ID)
    before = files(folder)
    assert store.set_aside(ID, 1)
    assert files(folder / "earlier" / "1") == before
    assert files(folder) == {f"earlier/1/{name}": content for name, content in before.items()}
    assert (store.record(ID).state, store.record(ID).number, store.record(ID).attempt) == ("new", 2, 0)
    trained.train(0, trained.launch())
    assert (store.record(ID).state, store.record(ID).number) == ("done", 2)
    assert store.set_aside(ID, 2)
    assert sorted(path.name for path in (folder / "earlier").iterdir()) == ["1", "2"]
    assert files(folder / "earlier" / "1") == before


def test_a_record_that_was_set_aside_can_be_read_like_any(trained):
    before = trained.store.record(ID)
    trained.store.set_aside(ID, 1)
    (past,) = trained.store.earlier(ID).values()
    assert past.record(ID) == before and before.run_id == "r1"
    assert past.trial_dir("b" * 12) == trained.store.trial_dir("b" * 12)


def test_the_folder_lists_a_trial_once_whatever_was_set_aside(trained):
    trained.store.set_aside(ID, 1)
    assert trained.store.trial_ids() == []
    trained.train(0, trained.launch())
    assert trained.store.trial_ids() == [ID]


def test_a_trial_that_another_process_has_is_not_touched(trained):
    with trained.store.lock(ID), pytest.raises(TrialBusy):
        Store(trained.store.root).set_aside(ID, 1)
    assert trained.store.record(ID).state == "done"


def test_of_two_who_set_the_same_record_aside_one_does_and_the_new_record_stays(trained):
    assert trained.store.set_aside(ID, 1)
    trained.train(0, trained.launch())
    assert not trained.store.set_aside(ID, 1)  # who comes late meant the first record
    assert trained.store.record(ID).state == "done"


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_at_any_rename_loses_nothing_and_leaves_one_whole_record(trained, monkeypatch, step):
    store, folder = trained.store, trained.store.trial_dir(ID)
    before, renames, rename = files(folder), [], Path.rename

    def dying(self, target):
        renames.append(self.name)
        if len(renames) == step:
            raise Crash
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(Crash):
        store.set_aside(ID, 1)
    monkeypatch.undo()
    assert sorted(files(folder).values()) == sorted(before.values())
    store.recover(ID)
    whole = files(folder) if store.record(ID).state == "done" else files(folder / "earlier" / "1")
    assert whole == before
    assert not aside.unfinished(folder)
    # six files and folders, then the journal; the last rename only names the folder
    assert (store.record(ID).state == "done") == (step <= 7)
    store.recover(ID)
    assert store.record(ID).state == "new" or (store.set_aside(ID, 1) and files(folder / "earlier" / "1") == before)


def test_who_takes_the_lock_after_a_crash_finds_the_folder_in_order(trained):
    folder = trained.store.trial_dir(ID)
    moving = folder / "earlier" / "1.moving"
    moving.mkdir(parents=True)
    (folder / "train.log").rename(moving / "train.log")
    with trained.store.lock(ID):
        assert (folder / "train.log").exists() and not moving.exists()


def test_looking_for_crashed_moves_makes_no_folders(tmp_path):
    Store(tmp_path / "runs").recover(ID)
    assert not (tmp_path / "runs").exists()
