"""Stopping after a step: signals that wait for it, batches that are passed over, generators that go on where they were."""

import os
import random
import signal
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from salt_lab.train.resume import pass_over, random_state, set_random_state
from salt_lab.train.stop import Stop


class Noted(Dataset):
    """Ten numbers that remember in which order they were asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.asked.append(index)
        return index


def loader(workers=0):
    data = Noted()
    batches = BatchSampler(SequentialSampler(data), 2, drop_last=False)
    return data, DataLoader(data, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_passed_over_once_without_loading_them(workers):
    data, batches = loader(workers)
    said = []
    pass_over(batches, 3, lambda: said.append(list(data.asked)))
    assert [batch.tolist() for batch in batches] == [[6, 7], [8, 9]]
    assert len(batches) == 5 and said == [[]]
    if not workers:
        assert data.asked == [6, 7, 8, 9]
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]] and len(said) == 1


def test_what_asks_a_batch_sampler_for_its_sampler_still_finds_it():
    _, batches = loader()
    sampler = batches.batch_sampler.sampler
    pass_over(batches, 1, lambda: None)
    assert batches.batch_sampler.sampler is sampler and not hasattr(batches.batch_sampler, "no_such_thing")


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(())), float(np.random.randn())  # noqa: NPY002


def test_random_generators_go_on_where_they_were(tmp_path):
    draws()
    torch.save(random_state(), tmp_path / "state.pth")
    first = [draws() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [draws() for _ in range(3)] == first


def kill(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_amid_an_epoch_a_signal_asks_and_the_second_leaves_at_once(number):
    before = signal.getsignal(number)
    with Stop().watching() as stop:
        stop.stepping = True
        kill(number)
        assert stop.reason == number.name
        with pytest.raises(KeyboardInterrupt):
            kill(number)
    assert stop.reason is None and signal.getsignal(number) is before


def test_outside_an_epoch_a_signal_leaves_at_once():
    with Stop().watching() as stop, pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        kill()
    assert stop.reason is None


def test_the_second_signal_does_what_signals_did_before():
    heard = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Stop().watching() as stop:
            stop.stepping = True
            kill()
            kill()
    finally:
        signal.signal(signal.SIGTERM, former)
    assert heard == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop().watching() as stop:
            stop.stepping = True
            kill(signal.SIGINT)
            assert stop.reason is None
    finally:
        signal.signal(signal.SIGINT, former)


def test_another_thread_can_ask():
    with Stop().watching() as stop:
        thread = threading.Thread(target=stop.ask, args=("the node is going",))
        thread.start()
        thread.join()
        assert stop.reason == "the node is going"


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def body():
        with Stop().watching() as stop:
            stop.ask("now")
            seen.append((stop.reason, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [("now", before)]
