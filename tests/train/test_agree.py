"""What workers tell each other, and how they come to have one model again."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from salt_lab.train import agree
from salt_lab.train.crew import Crew
from salt_lab.train.hooks import RecordHook, ReseedHook, shared_out
from salt_lab.train.meeting import listen

TASK = """
import json, os
from pathlib import Path
from types import SimpleNamespace
import torch
from salt_lab.train import agree
from salt_lab.train.meeting import Meeting, joined, take_over

def talk(*, rank, workers, line, folder, port):
    torch.set_num_threads(1)
    if rank == 0:
        take_over(int(os.environ["SALT_LAB_INHERITED"]))
    norm, mean = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    with joined(Meeting(rank, workers, "127.0.0.1", port), "cpu"):
        said = {"gathered": agree.gathered({"rank": rank}), "agreed": agree.agreed(f"worker {rank}"), "first": agree.is_first(),
                "any": [agree.any_worker(rank == 1), agree.any_worker(False)], "rank": [agree.rank(), agree.how_many()]}
        norm.running_mean.fill_(float(rank))
        mean.running_var.fill_(1.0 + 2 * rank)
        agree.share_statistics(SimpleNamespace(model=norm, hooks=[SimpleNamespace(ema_model=SimpleNamespace(module=mean))]))
    said["statistics"] = [norm.running_mean.item(), mean.running_var.item()]
    said["alone again"] = [agree.how_many(), "LOCAL_RANK" in os.environ]
    Path(folder, f"{rank}.json").write_text(json.dumps(said))
"""


def test_one_worker_answers_itself():
    norm = nn.BatchNorm1d(1)
    norm.running_mean.fill_(3.0)
    agree.share_statistics(SimpleNamespace(model=norm, hooks=[]))
    assert (agree.how_many(), agree.rank(), agree.is_first()) == (1, 0, True)
    assert agree.gathered("x") == ["x"] and agree.agreed("x") == "x" and agree.any_worker(True) and not agree.any_worker(False)
    assert norm.running_mean.item() == 3.0


@pytest.mark.integration
def test_two_workers_hear_each_other_and_average_what_batch_norm_has_seen(tmp_path, monkeypatch):
    (tmp_path / "agree_task.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    with listen("127.0.0.1") as door:
        order = {"folder": str(tmp_path), "port": door.getsockname()[1]}
        with Crew("agree_task:talk", order, 2, tmp_path / "log", door.fileno()) as crew:
            assert crew.watch() == [0, 0], (tmp_path / "log").read_text()
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank, each in enumerate(said):
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}] and each["agreed"] == "worker 0" and each["any"] == [True, False]
        assert each["rank"] == [rank, 2] and each["first"] == (rank == 0)
        assert each["statistics"] == [0.5, 2.0] and each["alone again"] == [1, False]


def test_workers_augment_by_draws_of_their_own_and_the_first_by_those_of_a_trial_on_one():
    draws = []
    for worker in ((), (0,), (1,)):
        ReseedHook(5, *worker).before_train_epoch(SimpleNamespace(epoch=2))
        draws.append(float(torch.rand(1)))
    assert draws[0] == draws[1] != draws[2]


SUMS = [{"losses": {"loss": torch.tensor(loss)}, "iters": 4, "images": 16, "seconds": 2.0} for loss in (8.0, 4.0)]


class TestSumsOfAnEpochThatWasLeftAmid:
    def loaded(self, checkpoint):
        hook = RecordHook(None, frozenset())
        hook.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)
        return hook._kept

    def test_each_worker_goes_on_with_its_own(self, monkeypatch):
        monkeypatch.setattr(agree, "how_many", lambda: 2)
        for rank, own in enumerate(SUMS):
            monkeypatch.setattr(agree, "rank", lambda rank=rank: rank)
            assert self.loaded({"sums": SUMS[0], "sums_of_others": SUMS[1:]}) is own

    def test_another_number_of_workers_goes_on_with_their_mean_and_all_their_images(self):
        assert self.loaded({"sums": SUMS[0], "sums_of_others": SUMS[1:]}) == {
            **SUMS[0],
            "losses": {"loss": 6.0},
            "images": 32,
        }

    def test_where_nothing_was_left_there_is_nothing_to_go_on_with(self):
        assert self.loaded({}) is None and shared_out([], 2) is None
