"""The command line as a whole: it starts at once, imports nothing heavy, and every error is one line with the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import salt_lab
from salt_lab.cli.lazy import LazyGroup, explain
from salt_lab.cli.main import COMMANDS, cli
from salt_lab.errors import DataError, TrialFailed

HEAVY = {"torch", "ray", "mlflow", "mmengine", "mmcv", "mmdet", "pandas", "matplotlib", "cv2", "numpy", "scipy"}
PROBE = """
import json, sys
from click.testing import CliRunner
from salt_lab.cli.main import cli
result = CliRunner().invoke(cli, sys.argv[1:])
print(json.dumps({"code": result.exit_code, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""
#: Runs a command and prints every module that it imported to stderr.
MODULES = "import sys\ntry: from salt_lab.cli.main import main; main()\nfinally: print('\\n'.join(sys.modules), file=sys.stderr)"


def python(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["plan", "STUDY"],
        ["plan", "STUDY", "--json"],
        ["status", "STUDY"],
        ["schema"],
        *([name, "--help"] for name in ("run", "infer", "browse")),
    ],
)
def test_reading_a_study_imports_no_heavy_library(words: list[str], study: Path) -> None:
    answer = json.loads(python("-c", PROBE, *(str(study) if word == "STUDY" else word for word in words)).stdout)
    assert answer["code"] == 0
    assert not HEAVY & set(answer["modules"])


#: What a command may import from outside Python's own library; benchmarks/start.py says what each of them costs.
LIGHT = {"salt_lab", "click"}
READING = {*LIGHT, "yaml", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "cython_runtime"}
#: Parts of Python's own library that cost as much as a small package, and that no command needs before it has something to do.
COSTLY = {"asyncio", "http", "multiprocessing", "sqlite3", "ssl", "unittest", "xml"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [(["--help"], LIGHT), (["--version"], LIGHT), (["run", "--help"], LIGHT), (["plan", "STUDY"], READING), (["status", "STUDY"], READING)],
)
def test_a_light_command_imports_what_it_needs_and_no_more(words: list[str], allowed: set[str], study: Path) -> None:
    before = python("-c", "import sys; print(*sys.modules)").stdout  # what an environment imports by itself, editable packages for one
    done = python("-c", MODULES, *(str(study) if word == "STUDY" else word for word in words))
    imported = {name.split(".")[0] for name in set(done.stderr.split()) - set(before.split())}
    foreign = {name for name in imported if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert done.returncode == 0
    assert foreign <= allowed
    assert not COSTLY & imported


def test_doctor_imports_the_libraries_that_it_tries_out_and_none_of_the_others(store: Path) -> None:
    done = python("-c", MODULES, "doctor", "--store", str(store))
    imported = set(done.stderr.split())
    assert done.returncode == 0 and {"torch", "mmcv", "numba"} <= imported
    assert not {"mmdet", "ray", "mlflow", "pandas", "matplotlib", "pyarrow", "pydantic"} & imported
    assert "scipy.stats" not in imported and "scipy.special" not in imported  # numba asks for SciPy's version, which costs little


def test_every_command_can_be_imported_and_says_what_it_does() -> None:
    group = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(group, name)
        assert command is not None and command.name == name
        assert command.short_help and command.help
    assert [line.split()[0] for line in CliRunner().invoke(cli, ["--help"]).output.partition("Commands:\n")[2].splitlines()] == list(
        COMMANDS
    )


def test_version_is_the_packages(run: Callable) -> None:
    assert run("--version").output == f"salt-lab, version {salt_lab.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plann"], "Did you mean 'plan'?"),
        (["data", "chek"], "Did you mean 'check'?"),
        (["plan", "x.yaml", "--jsn"], "--json"),
        (["run", "x.yaml", "--exeutor", "serial"], "--executor"),
        (["run", "x.yaml", "--executor", "slurm"], "'ray', 'serial'"),
        (["run", "x.yaml", "--cpus-per-trial", "0"], "--cpus-per-trial"),
        (["plan"], "Missing argument 'STUDY'"),
        (["test", "nowhere.py", "nowhere.pth"], "nowhere.py"),
    ],
)
def test_a_slip_of_the_pen_is_one_line_with_the_nearest_choice(run: Callable, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert said in result.stderr and "--help" in result.stderr


def test_a_group_without_a_command_shows_its_help(run: Callable) -> None:
    for words in ([], ["data"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "Commands:" in result.output and "error:" not in result.output


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (DataError("train.json: id 3: no box"), "train.json: id 3: no box", 2),
        (TrialFailed("trial 1: NaN"), "trial 1: NaN", 1),
        (click.Abort(), "interrupted", 130),
        (PermissionError(13, "Permission denied", "/results"), "/results: Permission denied", 1),
        (ModuleNotFoundError("No module named 'ray'", name="ray.tune"), "--executor serial", 2),
    ],
)
def test_known_errors_are_said_in_their_own_words(error: Exception, line: str, code: int) -> None:
    said, exit_code = explain(error)
    assert line in said and exit_code == code


def broken() -> click.Group:
    @click.group(cls=LazyGroup)
    def group() -> None: ...

    @group.command()
    def crash() -> None:
        raise ZeroDivisionError("by\nzero")

    return group


def test_a_bug_is_one_line_and_its_traceback_is_in_a_file() -> None:
    result = CliRunner().invoke(broken(), ["crash"])
    assert result.exit_code == 70
    assert result.stderr.count("\n") == 1 and "this is a bug in salt-lab (ZeroDivisionError: by zero)" in result.stderr
    file = Path(result.stderr.split()[-1])
    assert "in crash" in file.read_text()
    file.unlink()


def test_a_developer_can_ask_for_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALT_LAB_TRACEBACK", "1")
    result = CliRunner().invoke(broken(), ["crash"])
    assert "Traceback" in result.stderr and result.exit_code == 70


def test_ctrl_c_leaves_with_130() -> None:
    @click.group(cls=LazyGroup)
    def group() -> None: ...

    @group.command()
    def wait() -> None:
        raise KeyboardInterrupt

    assert CliRunner().invoke(group, ["wait"]).exit_code == 130


def test_a_reader_that_closes_the_pipe_is_no_bug(study: Path) -> None:
    command = f"{sys.executable} -m salt_lab plan {study} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=dict(os.environ), timeout=60, check=False)
    assert "tiny" in done.stdout and "bug" not in done.stderr and "Traceback" not in done.stderr
