"""Where a number comes from, and nothing about who made it."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import shutil
import subprocess
import sys

import pytest

from salt_lab.record import provenance as room


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed copy of a package named salt_lab, which provenance takes for ours."""
    package = tmp_path / "checkout" / "salt_lab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    monkeypatch.setattr(room, "_package", lambda: package)
    return package.parent


def test_a_clean_checkout_is_its_commit(checkout):
    found = room.provenance()
    assert found["git_commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert (found["git_dirty"], found["diff_sha256"], room.uncommitted_diff()) == (False, None, "")


def test_the_uncommitted_diff_rebuilds_the_code_that_ran(checkout, tmp_path):
    (checkout / "salt_lab" / "__init__.py").write_text("x = 2\n")
    (checkout / "salt_lab" / "new.py").write_text("y = 'é'\nz = 1")  # unknown to git, without an end of line
    (checkout / "salt_lab" / "empty.py").write_text("")
    (checkout / "runs.log").write_text("no source\n")
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(checkout), str(copy))
    patch = room.uncommitted_diff()
    subprocess.run(["git", "-C", str(copy), "apply"], input=patch, text=True, check=True)
    for name in ("__init__.py", "new.py", "empty.py"):
        assert (copy / "salt_lab" / name).read_bytes() == (checkout / "salt_lab" / name).read_bytes()
    assert "runs.log" not in patch
    found = room.provenance()
    assert found["git_dirty"] and len(found["diff_sha256"]) == 64


def test_looking_changes_nothing_in_the_repository(checkout):
    (checkout / "salt_lab" / "new.py").write_text("y = 1\n")
    before = {path: path.stat().st_mtime_ns for path in sorted(checkout.rglob("*")) if path.is_file()}
    room.provenance()
    assert {path: path.stat().st_mtime_ns for path in sorted(checkout.rglob("*")) if path.is_file()} == before


def test_the_code_version_follows_the_sources_and_not_the_place_or_the_commit(checkout, tmp_path, monkeypatch):
    first = room.code_version()
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    shutil.copytree(checkout / "salt_lab", tmp_path / "elsewhere" / "salt_lab")
    monkeypatch.setattr(room, "_package", lambda: tmp_path / "elsewhere" / "salt_lab")
    assert room.code_version() == first
    (tmp_path / "elsewhere" / "salt_lab" / "__init__.py").write_text("x = 3\n")
    assert room.code_version() != first


def test_without_git_the_commit_is_unknown_and_the_code_version_is_not(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = room.provenance()
    assert (found["git_commit"], found["git_dirty"], found["diff_sha256"], room.uncommitted_diff()) == (None, None, None, "")
    assert len(found["code_version"]) == 12


def test_a_package_installed_inside_somebody_elses_repository_has_no_commit(checkout, monkeypatch):
    installed = checkout / ".venv" / "salt_lab"
    shutil.copytree(checkout / "salt_lab", installed)
    monkeypatch.setattr(room, "_package", lambda: installed)
    assert room.provenance()["git_commit"] is None


def test_no_host_name_user_name_or_path_is_in_it():
    text = json.dumps(room.provenance())
    for secret in (platform.node(), str(room._package().parent), sys.prefix, f'"{getpass.getuser()}"'):
        assert secret not in text


def test_packages_and_machine_are_named():
    found = room.provenance()
    assert found["packages"]["numpy"] and set(room.PACKAGES) == set(found["packages"])
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_gb"] > 0.1 and found["machine"]["cpu"]


def test_a_process_asks_once_what_code_it_has_loaded_and_stays_with_the_answer_while_files_change(checkout):
    room.loaded_code.cache_clear()
    try:
        (checkout / "salt_lab" / "__init__.py").write_text("A = 2\n")
        found, diff = room.loaded_code()
        assert found["git_dirty"] and hashlib.sha256(diff.encode()).hexdigest() == found["diff_sha256"]
        (checkout / "salt_lab" / "__init__.py").write_text("A = 3\n")
        assert room.loaded_code() == (found, diff) and room.provenance()["diff_sha256"] != found["diff_sha256"]
    finally:
        room.loaded_code.cache_clear()
