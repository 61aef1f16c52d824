"""The journal survives what kills its writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from salt_lab.errors import StoreError
from salt_lab.record import Journal

WRITER = """
import sys
from pathlib import Path
from salt_lab.record import Journal
journal, i = Journal(Path(sys.argv[1])), 0
while True:
    journal.append("epoch", epoch=i, padding="x" * 500)
    print(i, flush=True)
    i += 1
"""


def test_an_absent_journal_is_empty_and_reading_makes_nothing(tmp_path):
    assert Journal(tmp_path / "trial" / "record.jsonl").read() == []
    assert list(tmp_path.iterdir()) == []


def test_events_come_back_in_order_with_their_time(tmp_path):
    journal = Journal(tmp_path / "trial" / "record.jsonl")
    journal.append("start", trial={"host": "atss"})
    journal.append("epoch", epoch=1)
    first, second = journal.read()
    assert (first["event"], first["trial"], second["epoch"]) == ("start", {"host": "atss"}, 1)
    assert first["time"] <= second["time"]


def test_every_line_is_strict_json_whatever_the_numbers_are(tmp_path):
    journal = Journal(tmp_path / "record.jsonl")
    journal.append(
        "eval", metrics={"AP": float("nan"), "AR1": np.float32(2.5), "APs": np.float64("-inf")}, size=(np.int64(3), 4), file=tmp_path
    )
    line = json.loads(journal.path.read_text(), parse_constant=pytest.fail)
    assert line["metrics"] == {"AP": None, "AR1": 2.5, "APs": None}
    assert (line["size"], line["file"]) == ([3, 4], str(tmp_path))


def test_a_torn_last_line_is_not_read(tmp_path):
    journal = Journal(tmp_path / "record.jsonl")
    journal.append("epoch", epoch=1)
    with journal.path.open("a") as file:
        file.write('{"event": "epoch", "time": 1.0, "epo')
    assert [line["epoch"] for line in journal.read()] == [1]


def test_the_next_event_after_a_torn_line_starts_on_a_fresh_one(tmp_path):
    journal = Journal(tmp_path / "record.jsonl")
    journal.append("epoch", epoch=1)
    with journal.path.open("ab") as file:
        file.write('{"event": "epoch", "note": "é'.encode()[:-1])  # half a letter
    journal.append("epoch", epoch=2)
    journal.append("epoch", epoch=3)
    assert [line["epoch"] for line in journal.read()] == [1, 2, 3]


def test_a_line_cut_before_its_newline_only_is_whole_before_and_after_the_next_event(tmp_path):
    journal = Journal(tmp_path / "record.jsonl")
    journal.path.write_text('{"event": "epoch", "time": 1.0, "epoch": 1}')
    assert len(journal.read()) == 1
    journal.append("epoch", epoch=2)
    assert [line["epoch"] for line in journal.read()] == [1, 2]


def test_killing_the_writer_loses_no_acknowledged_event(tmp_path):
    journal = Journal(tmp_path / "trial" / "record.jsonl")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(journal.path)], stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(20):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = 20 + len(writer.stdout.read().splitlines())
    epochs = [line["epoch"] for line in journal.read()]
    assert len(epochs) >= acknowledged
    assert epochs == list(range(len(epochs)))


def test_a_full_disk_is_said_with_the_file_and_the_next_step(tmp_path):
    (tmp_path / "record.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        StoreError, match=r"record\.jsonl: cannot record 'epoch': No space left on device.*goes on from its last checkpoint"
    ):
        Journal(tmp_path / "record.jsonl").append("epoch", epoch=1)


def test_half_a_write_is_an_error_and_harms_nothing_before_or_after(tmp_path, monkeypatch):
    journal, write = Journal(tmp_path / "record.jsonl"), os.write
    journal.append("epoch", epoch=1)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
    with pytest.raises(StoreError, match="only 9 of .* the disk is full"):
        journal.append("epoch", epoch=2)
    monkeypatch.setattr(os, "write", write)
    journal.append("epoch", epoch=3)
    assert [line["epoch"] for line in journal.read()] == [1, 3]


def test_something_that_is_no_data_is_refused_before_anything_is_written(tmp_path):
    journal = Journal(tmp_path / "record.jsonl")
    with pytest.raises(TypeError):
        journal.append("start", trial=object())
    assert journal.size() == 0
