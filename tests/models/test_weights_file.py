"""Weights files and the pickles in them: what is read, and what is refused without the user's word."""

import os
import pickle

import numpy as np
import pytest
import torch

from salt_lab.errors import WeightsError
from salt_lab.models.weights import read_weights
from salt_lab.models.weights_file import _harmless, read_checkpoint, write_weights
from salt_lab.spec.weights_file import HARMLESS, TRUST_VARIABLE, foreign_classes, whats_wrong


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def evil(tmp_path):
    """A checkpoint that makes a folder when it is unpickled, and that folder."""
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Evil(tmp_path / "was_here")}, tmp_path / "evil.pth")
    return tmp_path / "evil.pth", tmp_path / "was_here"


@pytest.fixture
def mmengines(tmp_path):
    """What mmengine's Runner saves: weights, epoch, and a message hub with the history of every logged number."""
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance(f"weights-{tmp_path.name}")
    for step in range(3):
        hub.update_scalar("train/loss", 0.5 * step)
        hub.update_scalar("train/lr", np.float32(0.1))
    hub.update_info("iter", np.int64(3))
    hub.update_info("palette", np.arange(6).reshape(2, 3))
    content = {"state_dict": {"a": torch.ones(1)}, "message_hub": hub.state_dict(), "meta": {"epoch": 1, "seed": np.int64(7)}}
    torch.save(content, tmp_path / "epoch_1.pth")
    return tmp_path / "epoch_1.pth"


def test_a_pickle_that_would_run_code_is_refused_by_name_and_does_not_run(evil):
    path, mark = evil
    with pytest.raises(WeightsError, match=rf"evil\.pth: .*posix\.mkdir.*--trust-checkpoint or set {TRUST_VARIABLE}=1"):
        read_weights(path)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_by_name_and_does_not_run(tmp_path):
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil(tmp_path / "was_here")))
    with pytest.raises(WeightsError, match=r"posix\.mkdir"):
        read_weights(tmp_path / "bare.pth")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_users_word_lets_it_in(evil, by, monkeypatch):
    path, mark = evil
    if by == "environment":
        monkeypatch.setenv(TRUST_VARIABLE, "1")
    assert read_weights(path, trust=by == "argument")["a"] == 1
    assert mark.exists()


def test_torch_itself_refuses_what_the_look_before_overlooks(evil, monkeypatch):
    monkeypatch.setattr("salt_lab.models.weights_file.whats_wrong", lambda path, trust: None)
    with pytest.raises(WeightsError, match="mkdir.*--trust-checkpoint"):
        read_weights(evil[0])
    assert not evil[1].exists()


def test_mmengines_checkpoint_with_its_log_history_needs_no_trust(mmengines):
    content = read_checkpoint(mmengines)
    assert content["message_hub"]["log_scalars"]["train/loss"].mean() == 0.5
    assert content["meta"]["seed"] == 7 and content["message_hub"]["runtime_info"]["palette"].shape == (2, 3)
    assert read_weights(mmengines).keys() == {"a"}


def test_a_checkpoint_from_numpy_1_needs_no_trust_either(mmengines, tmp_path):
    """NumPy 1 wrote numpy.core where NumPy 2 writes numpy._core; mmdet's model zoo is older than NumPy 2."""
    import zipfile

    renamed = tmp_path / "numpy1.pth"
    with zipfile.ZipFile(mmengines) as old, zipfile.ZipFile(renamed, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core.multiarray" in renamed.read_bytes()
    assert read_checkpoint(renamed)["meta"]["seed"] == 7


def test_getattr_in_a_pickle_reaches_nothing_but_a_historys_statistics(tmp_path):
    """``getattr`` would open every module to a pickle: here it asks for HistoryBuffer.__init__.__globals__."""
    from mmengine.logging import HistoryBuffer

    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer, "__init__")

    torch.save({"a": torch.ones(1), "b": Reach()}, tmp_path / "reach.pth")
    with pytest.raises(WeightsError, match="asks for getattr.*__init__"):
        read_weights(tmp_path / "reach.pth")


def test_an_array_of_objects_is_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": np.array([{}, None], dtype=object)}, tmp_path / "objects.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(tmp_path / "objects.pth")


def test_the_list_that_is_looked_for_is_the_list_that_torch_gets():
    allowed = {name for _, name in _harmless()}
    assert allowed >= HARMLESS and all(name.startswith("numpy.dtypes.") for name in allowed - HARMLESS)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6 and later", "before torch 1.6"])
def test_both_of_torchs_formats_are_read_and_looked_into(tmp_path, zipped):
    plain, strange = tmp_path / "plain.pth", tmp_path / "strange.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "meta": "mmdet 2.x"}, plain, _use_new_zipfile_serialization=zipped)
    torch.save({"a": torch.ones(2), "b": Evil(tmp_path)}, strange, _use_new_zipfile_serialization=zipped)
    assert read_weights(plain)["a"].tolist() == [1, 1] and foreign_classes(plain) == []
    assert foreign_classes(strange) == ["posix.mkdir"]


def test_safetensors_are_read_whatever_their_name_and_a_cut_is_noticed(tmp_path):
    write_weights({"a": torch.arange(4.0), "b": torch.ones(2).half()}, tmp_path / "w.safetensors", {"from": "test"})
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.safetensors").read_bytes())
    for name in ("w.safetensors", "w.pth"):
        state = read_weights(tmp_path / name)
        assert state["a"].tolist() == [0, 1, 2, 3] and state["b"].dtype == torch.float16
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-1])
    with pytest.raises(WeightsError, match="cut short"):
        read_weights(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "is empty"), (b"not weights", "not a file of torch.save's"), (b"PK\x03\x04 cut short", "cut short")]
)
def test_a_broken_file_is_named_with_its_reason(tmp_path, content, complaint):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"broken\.pth: .*{complaint}"):
        read_weights(tmp_path / "broken.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: the weights file cannot be read \(No such file"):
        read_weights(tmp_path / "none.pth")


def test_a_file_without_tensors_by_name_says_what_was_expected(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name; expected a state dict"):
        read_weights(tmp_path / "list.pth")
    assert whats_wrong(tmp_path / "list.pth") is None


# mmengine's own doors


def test_mmengine_unpickles_nothing_that_we_refuse(evil):
    """By itself it would: where weights_only fails, it falls back to unpickling the file whole."""
    from mmengine.runner import CheckpointLoader

    import salt_lab.models  # noqa: F401

    with pytest.raises(WeightsError, match=r"posix\.mkdir"):
        CheckpointLoader.load_checkpoint(str(evil[0]), map_location="cpu")
    assert not evil[1].exists()


def test_a_download_goes_into_torchs_cache_once_and_is_refused_alike(evil, tmp_path, monkeypatch):
    import salt_lab.models  # noqa: F401

    fetched = []

    def fetch(url, target, progress):
        fetched.append(url)
        os.link(evil[0] if "evil" in url else tmp_path / "good.pth", target)

    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "good.pth")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(WeightsError, match=r"posix\.mkdir"):
        read_checkpoint("https://example.org/evil-1.pth")
    for _ in range(2):
        assert read_checkpoint("torchvision://resnet50")["conv1.weight"] == 1
    assert [url.rpartition("/")[2] for url in fetched] == ["evil-1.pth", "resnet50-0676ba61.pth"]
    assert not evil[1].exists()
