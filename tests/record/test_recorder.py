"""Both recorders keep the contract."""

from __future__ import annotations

import pytest

from salt_lab.record import FolderRecorder, MemoryRecorder, Store
from salt_lab.testing.recorder_contract import START, RecorderContract, tell_epoch


class TestFolderRecorder(RecorderContract):
    @pytest.fixture
    def recorder(self, tmp_path):
        store = Store(tmp_path)
        with store.lock("0123456789ab"):
            yield FolderRecorder(store, "0123456789ab")

    def test_another_reader_of_the_folder_sees_the_same(self, recorder, tmp_path):
        recorder.start(**START)
        tell_epoch(recorder, 1)
        assert Store(tmp_path).record("0123456789ab") == recorder.record()


class TestMemoryRecorder(RecorderContract):
    @pytest.fixture
    def recorder(self):
        return MemoryRecorder()
