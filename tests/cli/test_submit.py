"""``submit``, ``status --job`` and ``stop``: what is sent and what is not, what is refused here, how a job's end is read. No cluster is needed."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import salt_lab
from salt_lab.cli.submit import choose_variables, conclude, read_words
from salt_lab.errors import UserError
from salt_lab.record import provenance, rows
from salt_lab.record.ray_job import in_ray_job, ray_job_id
from salt_lab.record.store import Store
from salt_lab.schedule.bundle import check_size, lay_out, read_there, variables_named
from salt_lab.schedule.ray_jobs import ContactLost, JobServer, JobState, without_rays_lines
from salt_lab.spec.study import load_study

NOBODY = "http://127.0.0.1:1"
COCO = "{train: '${PLACE}/t.json', val: '${PLACE}/v.json', images: '${PLACE}/photos'}"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PLACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def coco_study(study: Path) -> Path:
    """The tiny study on files whose place is a variable."""
    study.write_text(study.read_text().replace("{kind: marks, train_images: 4, val_images: 2, image_size: 64}", COCO))
    return study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the upload is laid out."""
    (tmp_path / "upload").mkdir()
    return (tmp_path / "upload").resolve()


@pytest.fixture
def asks_for_a_token() -> Iterator[str]:
    """The address of a server that says what a Ray dashboard with tokens says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"authentication_mode": "token"}')

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestWhatIsSent:
    def test_the_study_keeps_its_path_and_the_package_comes_along_without_caches(self, study: Path, folder: Path) -> None:
        files = lay_out(folder, study).files()
        sources = {
            path.relative_to(Path(salt_lab.__file__).parent.parent).as_posix() for path in Path(salt_lab.__file__).parent.rglob("*.py")
        }
        assert {"experiments/tiny.yaml"} | sources <= set(files)
        beside = {name for name in set(files) - sources if name not in ("experiments/tiny.yaml", f"salt_lab/{provenance.ORIGIN}")}
        assert {Path(name).suffix for name in beside} <= {".typed", ".yaml", ".json", ".html", ".css", ".js"}, "the package's own data"

    def test_the_copy_says_the_commit_that_it_was_made_from(self, study: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = provenance.provenance()
        if here["git_commit"] is None:
            pytest.skip("not a git checkout")
        lay_out(folder, study)
        monkeypatch.setattr(provenance, "_package", lambda: folder / "salt_lab")
        there = provenance.provenance()
        assert {key: there[key] for key in ("git_commit", "diff_sha256", "code_version")} == {
            key: here[key] for key in ("git_commit", "diff_sha256", "code_version")
        }
        (folder / "salt_lab" / "errors.py").write_text("")
        assert provenance.provenance()["git_commit"] is None

    def test_weights_results_and_history_stay_at_home_and_are_named(self, study: Path, folder: Path, tmp_path: Path) -> None:
        for name in ("mine/host.py", "mine/old.pth", "mine/.git/config", "mine/runs/a.json", "mine/__pycache__/host.pyc"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        bundle = lay_out(folder, study, package=False, include=[Path("mine")])
        assert set(bundle.files()) == {"experiments/tiny.yaml", "mine/host.py"}
        assert bundle.left_out == ("mine/old.pth",)

    @pytest.mark.parametrize(("name", "complaint"), [("w.pth", "weights are not uploaded"), ("no", "no such"), ("..", "below the working")])
    def test_what_cannot_be_included_is_refused(self, study: Path, folder: Path, tmp_path: Path, name: str, complaint: str) -> None:
        (tmp_path / "w.pth").write_text("x")
        with pytest.raises(UserError, match=complaint):
            lay_out(folder, study, package=False, include=[Path(name)])

    def test_too_much_is_refused_with_the_largest_files(self, study: Path, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "big.bin").write_bytes(b"\0" * 3 * 2**20)
        bundle = lay_out(folder, study, package=False, include=[Path("big.bin")])
        assert check_size(bundle) == pytest.approx(3, abs=0.01)
        with pytest.raises(UserError, match=r"3 MiB would be uploaded, at most 2 MiB .* big.bin \(3.0 MiB\), experiments/tiny.yaml"):
            check_size(bundle, limit_mib=2)


class TestVariables:
    def test_those_that_the_study_names_go_along_but_for_the_machines_own(self, coco_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named = variables_named(coco_study, ["backbone.init=${HOME}/${NET}.pth"])
        assert named == ["PLACE", "NET"]
        monkeypatch.setenv("PLACE", "/here")
        monkeypatch.setenv("SECRET", "s3cret")
        assert choose_variables(named, []) == {"PLACE": "/here"}
        assert choose_variables(named, ["PLACE=/there", "SECRET"]) == {"PLACE": "/there", "SECRET": "s3cret"}

    @pytest.mark.parametrize("given", ["NOT_SET_HERE", "=x", "a b=c"])
    def test_a_variable_without_name_or_value_is_refused(self, given: str) -> None:
        with pytest.raises(UserError, match="--env"):
            choose_variables([], [given])

    def test_values_are_never_printed(self, run: Callable, coco_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOKEN_OF_MINE", "s3cret-1")
        given = ("--env", "TOKEN_OF_MINE", "--env", "PLACE=/s3cret-2", "--mlflow-uri", "http://me:s3cret-3@mlflow.example.org")
        result = run("submit", coco_study, "--address", NOBODY, *given)
        assert result.exit_code == 2 and "TOKEN_OF_MINE, PLACE" in result.output and "s3cret" not in result.output

    def test_what_is_not_set_here_is_the_clusters_own(self, run: Callable, coco_study: Path) -> None:
        output = run("submit", coco_study, "--address", NOBODY).output
        assert "the cluster's own: PLACE" in output and "no Ray job server answers" in output

    def test_a_relative_path_to_data_is_refused_for_it_would_never_be_there(self, coco_study: Path, folder: Path) -> None:
        bundle = lay_out(folder, coco_study, package=False)
        with pytest.raises(UserError, match=r"data.train = 'mine.json' is a relative path, and data and weights are not uploaded"):
            read_there(bundle, ["data.train=mine.json"], {"PLACE": "/there"}, ["PLACE"])
        assert len(read_there(bundle, [], {"PLACE": "/there"}, ["PLACE"]).cells) == 4


class TestWhatIsRefusedHere:
    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (["--gpus-per-trail", "1"], "--gpus-per-trial"),
            (["--store", "runs"], "a folder on the cluster"),
            (["salt.enable=true"], "Did you mean 'enabled'?"),
            ([], "which cluster"),
            (["--address", "127.0.0.1:8265"], "http://127.0.0.1:8265"),
            (["--address", NOBODY], "no Ray job server answers (Connection refused)"),
        ],
    )
    def test_a_wrong_word_is_refused_with_what_to_write(self, run: Callable, study: Path, words: list[str], complaint: str) -> None:
        result = run("submit", study, *words)
        assert result.exit_code == 2 and complaint in result.stderr

    def test_without_the_token_that_is_asked_for_it_says_where_it_belongs(self, run: Callable, study: Path, asks_for_a_token: str) -> None:
        for words in (("submit", study), ("stop", "--job", "x"), ("status", "--job", "x")):
            result = run(*words, "--address", asks_for_a_token)
            assert result.exit_code == 2 and "asks for a token and there is none here. Copy the head's ~/.ray/auth_token" in result.stderr

    def test_a_study_or_a_job_but_not_both(self, run: Callable, study: Path) -> None:
        for words in ((), (study, "--job", "x")):
            assert run("status", *words).exit_code == 2


def test_options_of_run_are_handed_on_but_a_password_not_as_a_word(study: Path) -> None:
    uri = "http://me:s3cret@mlflow.example.org"
    asked = read_words(["--cpus-per-trial", "2", str(study), "seeds=[0,1]", f"--mlflow-uri={uri}", "--store", "/shared/runs"])
    assert (asked.overrides, asked.store, asked.mlflow) == (("seeds=[0,1]",), "/shared/runs", uri)
    assert asked.rest == ("--cpus-per-trial", "2", "seeds=[0,1]", "--store", "/shared/runs")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (JobState("j", "SUCCEEDED", driver_code=0), 0),
        (JobState("j", "FAILED", driver_code=1), 1),
        (JobState("j", "FAILED", driver_code=2), 2),
        (JobState("j", "FAILED", driver_code=-9), 137),
        (JobState("j", "STOPPED"), 130),
        (JobState("j", "FAILED", setup_failed=True), 2),
        (JobState("j", "FAILED"), 1),
    ],
)
def test_the_exit_code_is_the_studys_own(state: JobState, code: int) -> None:
    assert state.ended and state.exit_code == code


@pytest.mark.parametrize(
    ("message", "what"), [("/bin/sh: 1: python: not found", "python"), ("ModuleNotFoundError: No module named 'click'", "click")]
)
def test_a_cluster_without_the_environment_is_told_from_a_failed_study(message: str, what: str) -> None:
    with pytest.raises(UserError, match=f"the cluster lacks {what}: every node needs"):
        conclude(JobState("j", "FAILED", f"last logs:\n{message}\n", driver_code=127 if what == "python" else 1))


class FlakyServer:
    """Ray's client as :class:`JobServer` uses it; its connection breaks ``breaks`` times in the middle of the log."""

    def __init__(self, log: str, breaks: int) -> None:
        self.whole, self.breaks = log, breaks

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield self.whole[:5]
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield self.whole[5:]

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        nothing = dict.fromkeys(("submission_id", "message", "metadata", "runtime_env", "error_type", "start_time", "end_time"))
        return SimpleNamespace(**nothing, status="SUCCEEDED", driver_exit_code=0)

    def get_job_logs(self, job_id: str) -> str:
        return f"{self.whole}the end\n"


def server_with(client: FlakyServer) -> JobServer:
    server = JobServer.__new__(JobServer)
    server.address, server._client = NOBODY, client
    return server


def test_a_broken_connection_is_taken_up_again_and_no_word_is_printed_twice_or_lost() -> None:
    printed: list[str] = []
    state = server_with(FlakyServer("one two three\n", breaks=2)).follow("j", printed.append)
    assert "".join(printed) == "one two three\nthe end\n" and state.exit_code == 0


def test_a_server_that_stays_away_is_given_up_in_words() -> None:
    with pytest.raises(ContactLost, match=r"does not answer any more \(WebSocket connection closed unexpectedly\)"):
        server_with(FlakyServer("one two\n", breaks=99)).follow("j", lambda text: None, patience=0)


def test_rays_own_lines_are_no_part_of_an_answer() -> None:
    log = "2026-01-01 INFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job x: y\n2 trials: 2 done\n"
    assert without_rays_lines(log) == "2 trials: 2 done\n"


class TestTheJobInTheRecords:
    def in_job(self, monkeypatch: pytest.MonkeyPatch, job_id: str) -> None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": {"job_submission_id": job_id}}))

    def test_a_launch_and_its_mlflow_run_carry_the_jobs_name(self, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = load_study(study)
        ids = [f"{number:012x}" for number, _ in enumerate(plan.trials())]
        Store(store).new_launch(plan, ids)
        self.in_job(monkeypatch, "tiny-1")
        assert ray_job_id() == "tiny-1" and in_ray_job()
        launch_id = Store(store).new_launch(plan, ids)
        found = Store(store).launch_of_job("tiny-1")
        assert found is not None and found["launch_id"] == launch_id
        assert rows.launch_tags(found)["salt_lab.ray_job_id"] == "tiny-1"
        plain = next(launch for launch in Store(store).launches("tiny") if launch["launch_id"] != launch_id)
        assert "salt_lab.ray_job_id" not in rows.launch_tags(plain)

    @pytest.mark.usefixtures("fake_training")
    def test_status_by_job_reads_the_study_from_the_records_alone(
        self, run: Callable, study: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.in_job(monkeypatch, "tiny-2")
        run("run", study, "seeds=[0,1]", "--store", store, "--executor", "serial", "--no-mlflow")
        study.unlink()
        monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
        result = run("status", "--job", "tiny-2", "--store", store)
        assert result.exit_code == 0 and "8 trials: 8 done" in result.output
        unknown = run("status", "--job", "tiny-3", "--store", store)
        assert unknown.exit_code == 2 and "no launch of job 'tiny-3' there" in unknown.stderr

    @pytest.mark.parametrize("value", [None, "", "no json", "[]", "{}", '{"metadata": null}'])
    def test_outside_a_job_there_is_no_name(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        if value is not None:
            monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", value)
        assert ray_job_id() is None
