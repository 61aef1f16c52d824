"""``run`` from the first word to the last: trains what is not done, prints the table, says where things are, leaves with the right code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from salt_lab.cli.outcome import mlflow_hint
from salt_lab.record.store import Store

TRAIN = ("--executor", "serial", "--no-mlflow")
#: A run in a process of its own, whose trials train nothing.
FAKE = "import salt_lab.train.trial as t; from salt_lab.testing.fake_trial import fake_trial; t.run_trial = fake_trial\n"
FAKE += "from salt_lab.cli.main import main; main()"


@pytest.mark.usefixtures("fake_training")
class TestRun:
    def test_it_prints_the_short_table_and_the_full_one(self, run: Callable, study: Path, store: Path) -> None:
        result = run("run", study, "--store", store, *TRAIN)
        assert result.exit_code == 0, result.output
        assert "| host |   AP | AP + SALT | delta |" in result.output
        assert re.search(r"\| host \| SALT \| +AP \| +delta \| +AP50 \|", result.output)

    def test_it_says_where_everything_is_and_what_to_try_next(self, run: Callable, study: Path, store: Path) -> None:
        output = run("run", study, "--store", store, *TRAIN).output
        for path in ("studies/tiny/table.md", "studies/tiny/figures/gains.png", "trials"):
            assert str(store / path) in output and (store / path).exists()
        assert f"salt-lab sync {store}" in output
        assert f"'seeds=[0,1,2]' --store {store}" in output

    def test_another_study_beside_it_is_suggested_and_no_other_yaml_file(self, run: Callable, study: Path, store: Path) -> None:
        other = study.with_name("which_host.yaml")
        other.write_text("question: which host?\nbase: {}")
        study.with_name(".pre-commit-config.yaml").write_text("repos: []")
        output = run("run", study, "--store", store, *TRAIN).output
        assert f"salt-lab plan {other}   # other questions: {other}\n" in output

    def test_what_it_suggests_next_keeps_the_overrides(self, run: Callable, study: Path, store: Path) -> None:
        output = run("run", study, "schedule.epochs=3", "seeds=[5]", "--store", store, *TRAIN).output
        assert f"salt-lab run {study} schedule.epochs=3 'seeds=[5,6,7]' --store {store}" in output

    def test_what_is_done_is_not_run_again(self, run: Callable, study: Path, store: Path) -> None:
        run("run", study, "--store", store, *TRAIN)
        before = {path: path.read_bytes() for path in store.glob("trials/*/record.jsonl")}
        again = run("run", study, "--store", store, *TRAIN)
        assert again.exit_code == 0 and "reused 4" in again.output
        assert {path: path.read_bytes() for path in store.glob("trials/*/record.jsonl")} == before

    def test_failed_trials_are_listed_with_reason_and_log_and_the_code_is_1(self, run: Callable, study: Path, store: Path) -> None:
        result = run("run", study, "seeds=[0,1001]", "--store", store, *TRAIN)
        assert result.exit_code == 1
        failures = [line for line in result.stderr.splitlines() if line.startswith("failed:")]
        assert len(failures) == 4 and all("the loss is NaN" in line for line in failures)
        assert result.stderr.count("train.log") == 4
        assert "| host |" in result.output  # the others' table is printed all the same

    def test_without_mlflow_it_writes_the_folder_and_says_so(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hide(monkeypatch, "mlflow", "ray")
        result = run("run", study, "--store", store, "--executor", "serial")
        assert result.exit_code == 0 and f"salt-lab sync {store}" in result.output
        assert not (store / "mlflow.db").exists()

    def test_a_server_is_refused_where_mlflow_is_not_installed(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hide(monkeypatch, "mlflow")
        result = run("run", study, "--store", store, "--executor", "serial", "--mlflow-uri", "http://127.0.0.1:5000")
        assert result.exit_code == 2 and "mlflow is not installed" in result.stderr and not store.exists()

    def test_ray_is_refused_where_it_is_not_installed(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hide(monkeypatch, "ray")
        result = run("run", study, "--store", store, "--no-mlflow")
        assert result.exit_code == 2 and "--executor serial" in result.stderr

    def test_a_time_limit_ends_it_with_a_code_of_its_own_and_the_same_command_goes_on(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("run", study, "axes.host=[fcos]", "seeds=[1004]", "--store", store, *TRAIN, "--for")
        monkeypatch.setattr(sys, "argv", ["salt-lab", *map(str, words), "1.2s"])
        ended = run(*words, "1.2s")
        assert ended.exit_code == 75, ended.output
        assert "the time limit of 1s is over. The same command goes on from the last checkpoints: salt-lab run" in ended.stderr
        assert "--for 1.2s" in ended.stderr
        again = run(*words, "10m")
        assert again.exit_code == 0, again.output
        assert [Store(store).record(name).state for name in Store(store).trial_ids()] == [
            "done",
            "done",
        ]  # one perhaps before the time was over

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--executor", "serial", "--for", "soon"), "--for: 'soon' is no length of time: write 90s, 9m or 1h30m"),
            (("--for", "9m"), "--for: with --executor serial only"),
        ],
    )
    def test_a_time_limit_that_cannot_be_kept_is_refused_before_anything_starts(
        self, run: Callable, study: Path, store: Path, words: tuple[str, ...], said: str
    ) -> None:
        result = run("run", study, "--store", store, "--no-mlflow", *words)
        assert result.exit_code == 2 and said in result.stderr and not store.exists()

    def test_one_cell_of_a_study_is_trained_and_recorded_alone(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hide(monkeypatch, "mlflow")  # only to save its 5 seconds
        result = run("train", study, "--cell", "host=atss salt=on", "--store", store)
        assert result.exit_code == 0, result.output
        states = {trial["cell"]: trial["state"] for trial in json.loads(run("plan", study, "--store", store, "--json").output)["trials"]}
        assert states.pop("host=atss salt=on") == "done" and set(states.values()) == {"new"}


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages look as if they were not installed."""
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in packages else find_spec(name, *rest))
    for package in packages:
        for module in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_with_130_and_the_same_command_goes_on(name: str, study: Path, store: Path) -> None:
    words = [
        sys.executable,
        "-c",
        FAKE,
        "run",
        str(study),
        "axes.host=[fcos]",
        "seeds=[1004]",
        "schedule.epochs=4",
        "--store",
        str(store),
        *TRAIN,
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(b'"epoch"' in path.read_bytes() for path in store.glob("trials/*/record.jsonl")))
    os.kill(process.pid, getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command goes on" in stderr and "salt-lab run" in stderr and "Traceback" not in stderr
    again = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    journal = max((path.read_text() for path in store.glob("trials/*/record.jsonl")), key=lambda text: text.count('"start"'))
    starts = [json.loads(line)["resumed_epoch"] for line in journal.splitlines() if json.loads(line)["event"] == "start"]
    assert len(starts) == 2 and starts[0] == 0 and starts[1] > 0


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the trial did not begin"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (None, "salt-lab sync '/my results'"),
        ("sqlite:////my results/mlflow.db", "salt-lab ui --store '/my results'"),
        ("sqlite:////elsewhere/mlflow.db", "mlflow ui --backend-store-uri sqlite:////elsewhere/mlflow.db"),
        ("https://me:secret@server:8443", "https://server:8443"),
    ],
)
def test_the_way_to_mlflow_is_an_exact_command_and_holds_no_password(uri: str | None, said: str) -> None:
    hint = mlflow_hint(Path("/my results"), uri)
    assert said in hint and "secret" not in hint
