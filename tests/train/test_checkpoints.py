"""Checkpoints on the disk: what is damaged is not gone on from, what is not whole never counts."""

import errno
import os

import pytest
import torch

from salt_lab.errors import TrialFailed
from salt_lab.train.checkpoints import clear_the_way, last_checkpoint, position, resumable, whats_wrong, write_checkpoint


def save(folder, name):
    return write_checkpoint(folder, name, lambda partial: torch.save({"state_dict": {"w": torch.arange(5000.0)}}, folder / partial))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Two epochs' checkpoints."""
    save(tmp_path, "epoch_1.pth")
    save(tmp_path, "epoch_2.pth")
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "cut short": cut,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "one bit": flip,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "missing": lambda path: path.unlink(),
}


def test_the_last_two_are_kept_and_the_last_is_named(folder):
    save(folder, "epoch_2_step_50.pth")
    assert names(folder) == ["epoch_2.pth", "epoch_2_step_50.pth", "last_checkpoint"]
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_2_step_50.pth") == str(last_checkpoint(folder))


def test_a_step_of_an_epoch_comes_after_the_epoch_before_and_before_its_own_end(tmp_path):
    order = ["epoch_9.pth", "epoch_9_step_5.pth", "epoch_9_step_40.pth", "epoch_10.pth"]
    assert sorted(sorted(order), key=lambda name: position(tmp_path / name)) == order != sorted(order)
    assert [position(tmp_path / name)[0] for name in order] == [9, 9, 9, 10]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_of_a_damaged_last_checkpoint_the_one_before_is_used_and_the_note_says_so(folder, damage):
    damage(folder / "epoch_2.pth")
    found = resumable(folder)
    assert (found.path, found.epoch, found.step) == (folder / "epoch_1.pth", 1, 0)
    assert "epoch_2.pth" in found.note and found.note.endswith("goes on from epoch_1.pth") and "\n" not in found.note


def test_where_none_can_be_read_it_starts_from_scratch_and_says_so(folder):
    cut(folder / "epoch_1.pth")
    flip(folder / "epoch_2.pth")
    found = resumable(folder)
    assert (found.path, found.epoch) == (None, 0) and found.note.endswith("no checkpoint can be read, starts from scratch")


def test_no_checkpoint_yet_is_nothing_to_speak_of(tmp_path):
    assert resumable(tmp_path).note is None and last_checkpoint(tmp_path / "absent") is None


def test_a_folder_that_was_moved_is_gone_on_from_where_it_is_now(folder):
    moved = folder.rename(folder.with_name("moved"))
    assert resumable(moved).path == moved / "epoch_2.pth" and resumable(moved).note is None


def test_a_damaged_one_steps_aside_so_that_the_last_two_are_good_ones(folder):
    cut(folder / "epoch_2.pth")
    (folder / ".epoch_3.pth.part").write_bytes(b"half")
    clear_the_way(folder, resumable(folder))
    save(folder, "epoch_1_step_7.pth")
    assert names(folder) == ["epoch_1.pth", "epoch_1_step_7.pth", "epoch_2.pth.damaged", "last_checkpoint"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_never_counts(folder):
    def fill_up(partial):
        (folder / partial).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TrialFailed, match=rf"{folder}: cannot write the checkpoint epoch_3.pth: No space left on device. Free space"):
        write_checkpoint(folder, "epoch_3.pth", fill_up)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_best_weights_are_no_place_to_go_on_from(folder):
    save(folder, "best_epoch_3.pth")
    assert last_checkpoint(folder) == folder / "epoch_2.pth" and len(names(folder)) == 4


def test_a_zip_that_is_no_checkpoint_is_none(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "epoch_1.pth", "w") as file:
        file.writestr("hello.txt", "hello")
    assert whats_wrong(tmp_path / "epoch_1.pth") == "is no checkpoint"
