"""The repository as a whole: what its pages promise is there, versions stand in one place, and nothing ties it to one machine."""

from __future__ import annotations

import ast
import configparser
import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import salt_lab

PAGES = ("README.md", "CONTRIBUTING.md", "cluster/README.md", "experiments/README.md", "benchmarks/README.md")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[0-9][^ ;]*)(?P<marker> ; python_version (?:<|>=) \"3\.11\")?$")


@pytest.fixture(scope="module")
def settings(repository: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def pins(repository: Path) -> list[re.Match[str]]:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    matches = [PIN.match(line) for line in lines]
    assert [line for line, match in zip(lines, matches, strict=True) if match is None] == []
    return [match for match in matches if match]


@pytest.fixture(scope="module")
def texts(repository: Path) -> dict[str, str]:
    """Every text file that git has or would add, by its path in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = {}
    for name in filter(None, listed.split("\0")):
        data = (repository / name).read_bytes() if (repository / name).is_file() else b"\0"
        if b"\0" not in data[:8000]:
            found[name] = data.decode()
    assert len(found) > 50
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(text: str) -> list[str]:
    """Package names of an ``install_requires`` list."""
    return [canonical(re.split(r"[\[><=!~ ;]", line)[0]) for line in text.split("\n") if line]


def make(repository: Path, *words: str) -> str:
    return subprocess.run(["make", "-n", *words], cwd=repository, check=True, capture_output=True, text=True).stdout


# --- what the pages promise ---


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_is_there(repository, page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", (repository / page).read_text())
    assert [link for link in links if not (repository / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_study_and_config_that_a_page_names_is_there(repository, page):
    named = re.findall(r"\b(?:experiments|cluster|benchmarks)/[\w/]+\.(?:ya?ml|py|sh)\b", (repository / page).read_text())
    assert [name for name in named if not (repository / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_of_a_page_is_a_target(repository, page):
    blocks = re.findall(r"```\n(.*?)```", (repository / page).read_text(), re.DOTALL)
    inline = re.findall(r"`(make [a-z]+)`", (repository / page).read_text())
    commands = [*inline, *(line for block in blocks for line in block.splitlines())]
    for target in {line.split()[1] for line in commands if line.startswith("make ")}:
        assert make(repository, target)


@pytest.mark.parametrize("page", PAGES)
def test_every_salt_lab_command_of_a_page_exists(repository, page):
    from salt_lab.cli.main import cli

    text = (repository / page).read_text()
    named = set(re.findall(r"(?:^|`|-- |\s)salt-lab +([a-z]+)\b(?= |`|$)", text, re.MULTILINE))
    assert named - set(cli.list_commands(None)) == set()


def test_the_readme_prints_the_two_commands_that_ci_runs(repository):
    commands = re.search(r"## Two commands.*?```\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL).group(1).split("\n")
    ci = (repository / ".ci" / "run").read_text()
    for command in filter(None, commands):
        assert re.search(rf"^step \w+ {command}$", ci, re.MULTILINE), f"'{command}' is not a step of .ci/run"


def test_the_yaml_study_in_the_readme_is_a_study(repository, tmp_path):
    from salt_lab.spec.study import load_study

    block = re.search(r"```yaml\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL).group(1)
    (tmp_path / "readme.yaml").write_text(block)
    assert len(load_study(tmp_path / "readme.yaml").cells) == 6


# --- one place for versions ---


def test_the_version_is_said_once_and_the_same_everywhere(repository, settings):
    assert settings["metadata"]["version"] == "attr: salt_lab.__version__"
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert str(citation["version"]) == salt_lab.__version__
    assert salt_lab.__version__ in (repository / "CHANGELOG.md").read_text()


def test_every_requirement_has_a_tested_version_for_every_python(settings, pins):
    options = settings["options"]["install_requires"], settings["options.extras_require"]["dev"]
    for name in {name for text in options for name in required(text)}:
        markers = sorted((pin["marker"] or "").strip() for pin in pins if pin["name"] == name)
        assert markers in ([""], ['; python_version < "3.11"', '; python_version >= "3.11"']), f"{name}: pinned {markers}"


def test_the_installed_versions_are_the_pinned_ones(pins):
    """Not a test of the code: a result from an environment that differs from constraints.txt should say so."""
    from importlib.metadata import PackageNotFoundError, version

    here = "<" if sys.version_info < (3, 11) else ">="
    wrong = []
    for pin in pins:
        try:
            found = version(pin["name"]).split("+")[0]
        except PackageNotFoundError:
            continue
        if f" {here} " in (pin["marker"] or f" {here} ") and found != pin["version"]:
            wrong.append(f"{pin['name']} {found}, not {pin['version']}")
    assert wrong == []


def test_make_installs_torch_first_with_the_pin_of_the_constraints(repository, pins):
    torch = next(pin for pin in pins if pin["name"] == "torch")
    steps = [line for line in make(repository, "install", "VENV=no-such-venv").splitlines() if "-m pip" in line]
    assert steps[0].endswith(f"-c constraints.txt torch=={torch['version']}")
    assert steps[1].endswith("-c constraints.txt -e '.[dev]'")
    assert len(steps) == 2


def test_no_other_file_pins_a_version(texts):
    pinned = {
        name: found
        for name, text in texts.items()
        if name != "constraints.txt" and not name.endswith((".json", ".jsonl", ".ipynb", ".diff")) and not name.startswith("tests/")
        for found in [re.findall(r"\b(?:torch|ray|mlflow|numpy|onedl-mm\w+)(?:\[[a-z,]+\])?==[0-9][\w.]*", text)]
        if found
    }
    assert pinned == {}


# --- rooms ---


def test_the_import_rules_name_every_room(repository, settings):
    rooms = {path.parent.name if path.name == "__init__.py" else path.stem for path in (repository / "salt_lab").glob("*/__init__.py")}
    rooms |= {path.stem for path in (repository / "salt_lab").glob("*.py")} - {"__init__"}
    contract = settings["importlinter:contract:rooms"]
    named = set(re.findall(r"\w+", contract["layers"] + contract["exhaustive_ignores"]))
    assert named == rooms
    sources = set(settings["importlinter:contract:testing"]["source_modules"].split())
    assert sources == {f"salt_lab.{room}" for room in rooms - {"testing", "__main__"}}


def test_only_the_doors_import_mlflow_and_ray(texts):
    """Also inside functions; import-linter says the same, this needs no more than the sources."""
    doors = {"mlflow": {"salt_lab/record/mlflow_store.py"}, "ray": {name for name in texts if name.startswith("salt_lab/schedule/ray_")}}
    for name, text in texts.items():
        if name.startswith("salt_lab/") and name.endswith(".py"):
            roots = {root for node in ast.walk(ast.parse(text)) for root in imported(node)}
            assert [library for library, door in doors.items() if library in roots and name not in door] == [], name


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) and not node.level else []


# --- nothing of one machine ---


def test_no_file_names_a_folder_of_one_machine_or_a_package_registry(texts):
    machine = r"(?<![\w.~}])/(?:wo" + r"rk|ro" + r"ot)/\w"  # in two pieces, so that this file passes too
    registries = [r"py" + r"pi\.org", r"pythonhos" + r"ted\.org", r"download\.pyto" + r"rch"]
    places = re.compile("|".join([machine, *registries]))
    found = {name: places.search(text).group() for name, text in texts.items() if places.search(text)}
    assert found == {}


def test_no_secret_lies_in_the_repository(texts):
    secret = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{30,}|://[^/\s:{}<>$]+:[^/\s@{}<>$]{6,}@[\w-]+\.")
    assert {name for name, text in texts.items() if secret.search(text) and not name.startswith("tests/")} == set()
    assert [name for name in texts if "token" in Path(name).name and not name.endswith((".py", ".md"))] == []


def test_large_things_stay_out_of_git(repository, texts):
    assert [name for name in texts if (repository / name).stat().st_size > 1_000_000] == []
    assert [name for name in texts if name.startswith(("runs/", ".venv", "work_dirs/"))] == []


# --- scripts ---


@pytest.mark.parametrize("script", [".ci/run", "cluster/slurm.sh", "cluster/mlflow_server.sh"])
def test_shell_scripts_are_executable_and_parse(repository, script):
    assert (repository / script).stat().st_mode & 0o100
    subprocess.run(["bash", "-n", str(repository / script)], check=True)


def test_ray_accepts_the_cluster_file(repository):
    """The checks that ``ray up`` makes before it connects to anything."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load((repository / "cluster" / "ray_cluster.yaml").read_text()))
    util.validate_config(config)
    assert config["available_node_types"]["local.cluster.node"]["max_workers"] == 2


def check_demo(repository: Path, table: str, rows: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "benchmarks" / "check_demo.py"), "--rows", str(rows), "--least-ap", "20"]
    return subprocess.run(command, input=table, capture_output=True, text=True, check=False)


def table(*rows: tuple[str, str, str]) -> str:
    """A table as the lab writes it: ``(host, seeds done, AP)`` a row."""
    out = io.StringIO()
    csv.writer(out).writerows([("host", "cell_key", "state", "seeds_done", "seeds_asked", "AP")])
    csv.writer(out).writerows((host, "0" * 12, "done" if done == "1" else "failed", done, "1", ap) for host, done, ap in rows)
    return out.getvalue()


def test_the_demo_passes_when_every_trial_is_done_and_good_enough(repository):
    result = check_demo(repository, table(("fcos", "1", "20.0"), ("atss", "1", "31.25")))
    assert (result.returncode, result.stdout) == (0, "check_demo: 2 cells, all done, lowest AP 20.0\n")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (table(("fcos", "1", "25.0")), "the table has 1 cells, not 2"),
        (table(("fcos", "1", "25.0"), ("atss", "0", "")), "host=atss: 0 of 1 trials done (failed)"),
        (table(("fcos", "1", "25.0"), ("atss", "1", "19.9")), "host=atss: AP 19.9, wanted at least 20"),
        (table(("fcos", "1", "25.0"), ("atss", "1", "")), "host=atss: AP missing, wanted at least 20"),
        ("", "no column"),
    ],
)
def test_the_demo_fails_when_a_trial_is_missing_or_too_weak(repository, broken, said):
    result = check_demo(repository, broken)
    assert result.returncode == 1
    assert said in result.stderr
