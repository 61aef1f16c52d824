"""The training code's version: blind to how the code is written, not to what it does."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import salt_lab
from salt_lab.record import code_digests, training_code
from salt_lab.record import provenance as provenance_room
from salt_lab.record.training_code import ONLY, ROOMS, _digests, normal_form, training_code_version

SOURCE = '''"""A module."""

from math import pi as PI

RATES = {"low": 0.1, "high": 1e-3}


class Head:
    """Ours."""

    stride: int = 8
    """Pixels."""

    def area(self, radius, *, scale=2.5, **rest):
        """In square pixels."""
        if radius < 0:
            pass
        return [PI * radius**2 * scale + x for x in rest if f"{x:>{scale}}" != 'no']
'''
#: The same with other comments, docstrings, quotes, brackets and line breaks.
REWRITTEN = """# new comment
from math import pi as PI
RATES = {
    'low': .1,   # why
    "high": (0.001),
}
class Head:
    stride: int = 8

    def area(
        self, radius, *,
        scale=2.50, **rest,
    ):
        '''Something else.'''
        if (radius < 0): "nothing"
        return [((PI * (radius**2)) * scale) + x for x in rest if f'{x:>{scale}}' != "no"]
"""


@pytest.fixture
def package(tmp_path):
    """A package with a file in each room, and one in a room that decides no result."""
    for room in (*ROOMS, "cli"):
        (tmp_path / "salt_lab" / room).mkdir(parents=True)
        (tmp_path / "salt_lab" / room / "code.py").write_text(SOURCE)
    (tmp_path / "salt_lab" / "evaluate" / "metric.py").write_text(SOURCE)
    return tmp_path / "salt_lab"


def test_comments_docstrings_quotes_brackets_and_line_breaks_do_not_count(package):
    before = training_code_version(package)
    (package / "train" / "code.py").write_text(REWRITTEN)
    assert training_code_version(package) == before
    assert len(before) == 12 and set(before) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stride: int = 8", "stride: int = 16"),  # a constant
        ("1e-3", "1e-4"),
        ("scale=2.5", "scale=2"),  # a default
        ("scale=2.5", "scale=2.50001"),
        ("radius < 0", "radius <= 0"),  # an operator
        ("pi as PI", "tau as PI"),  # an import
        ("!= 'no'", "!= b'no'"),  # the kind of a constant
        ("def area(self, radius, *", "def area(self, radius=None, *"),
        (">{scale}", "<{scale}"),  # inside an f-string
        ("            pass", "            return 0"),
        ("self, radius, *, scale", "self, radius, /, scale"),
    ],
)
@pytest.mark.parametrize("room", ["ops", "train"])
def test_what_can_change_a_result_counts(package, room, old, new):
    before = training_code_version(package)
    assert old in SOURCE
    (package / room / "code.py").write_text(SOURCE.replace(old, new))
    assert training_code_version(package) != before


def test_a_room_that_decides_no_result_does_not_count(package):
    before = training_code_version(package)
    (package / "cli" / "code.py").write_text("answer = 42\n")
    (package / "train" / "__pycache__").mkdir()
    (package / "train" / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"\0")
    assert training_code_version(package) == before


def test_a_new_way_to_look_at_finished_runs_does_not_count(package):
    before = training_code_version(package)
    (package / "evaluate" / "code.py").write_text("answer = 42\n")
    (package / "evaluate" / "bootstrap.py").write_text("answer = 42\n")
    assert training_code_version(package) == before
    (package / "evaluate" / "metric.py").write_text(SOURCE.replace("= 8", "= 9"))
    assert training_code_version(package) != before


def test_of_evaluation_exactly_what_the_evaluator_of_training_imports_counts():
    """Written down, and found again by reading the import statements."""
    folder = Path(salt_lab.__file__).parent / "evaluate"
    found, ahead = {"__init__"}, ["metric"]
    while ahead:
        found.add(name := ahead.pop())
        imported = imports((folder / f"{name}.py").read_text(encoding="utf-8"))
        ahead += [module for module in imported if module not in found]
    assert {f"{name}.py" for name in found} == set(ONLY["evaluate"])


def imports(source):
    """Modules of salt_lab.evaluate that a file names."""
    together = re.findall(r"^\s*from salt_lab\.evaluate import \(?([\w, \n]+)", source, re.M)
    return set(re.findall(r"(?:from|import) salt_lab\.evaluate\.(\w+)", source)) | {
        name for names in together for name in re.findall(r"\w+", names)
    }


@pytest.mark.parametrize("name", ["new.py", "hosts.json", "kernel.cpp", "deeper/new.py"])
def test_a_new_file_and_a_moved_one_count(package, name):
    before = training_code_version(package)
    (package / "models" / name).parent.mkdir(exist_ok=True)
    (package / "models" / name).write_text("x = 1\n")
    with_file = training_code_version(package)
    (package / "models" / name).rename(package / "models" / "moved.py")
    assert len({before, with_file, training_code_version(package)}) == 3


def test_the_folder_in_which_the_package_lies_does_not_count(package, tmp_path):
    shutil.copytree(package, tmp_path / "elsewhere" / "salt_lab")
    assert training_code_version(tmp_path / "elsewhere" / "salt_lab") == training_code_version(package)


def test_a_file_that_is_half_written_has_a_version_too(package):
    before = training_code_version(package)
    (package / "data" / "code.py").write_text("def broken(:\n")
    assert training_code_version(package) != before


def test_a_change_within_one_process_is_seen(package):
    before = training_code_version(package)
    (package / "data" / "code.py").write_text(SOURCE.replace("= 8", "= 9"))
    assert training_code_version(package) != before


def test_every_python_gives_the_same_version(package):
    """Written down with Python 3.11; CI asks 3.10 and 3.12 the same."""
    assert training_code_version(package) == "676975ca6d12"


def test_empty_parts_do_not_run_into_each_other():
    forms = [
        normal_form(text) for text in (b"x[1:]", b"x[:1]", b"x[::1]", b"f(a, *b)", b"f(*a, b)", b"{**a}", b"{a: b}", b"[a, b]", b"[[a], b]")
    ]
    assert len(set(forms)) == len(forms)


@pytest.fixture
def parsed(package, monkeypatch):
    """The names of the files that are parsed to tell the version of ``package`` in a process of its own; they have lain there for a while."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(code_digests, "SETTLED_SECONDS", -1.0)
    read, names = training_code._read_digest, list[str]()

    def noting(path):
        names.append(path.relative_to(package).as_posix())
        return read(path)

    def in_a_new_process():
        _digests.clear()
        names.clear()
        return training_code_version(package), sorted(names)

    monkeypatch.setattr(training_code, "_read_digest", noting)
    return in_a_new_process


def test_the_next_process_parses_only_what_has_changed(package, parsed):
    first, everything = parsed()
    assert "train/code.py" in everything
    assert parsed() == (first, [])
    (package / "train" / "code.py").write_text(SOURCE.replace("radius", "r"))
    changed, again = parsed()
    assert changed != first and again == ["train/code.py"]
    assert parsed() == (changed, [])


def test_a_change_under_the_old_time_and_size_is_seen(package, parsed):
    file = package / "ops" / "code.py"
    first, _ = parsed()
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text(SOURCE.replace("stride: int = 8", "stride: int = 9"))
    os.utime(file, ns=times)
    assert parsed()[0] != first


def test_what_changed_a_moment_ago_is_read_again(parsed, monkeypatch):
    monkeypatch.setattr(code_digests, "SETTLED_SECONDS", 60.0)
    first, everything = parsed()
    assert parsed() == (first, everything)


def test_digests_by_other_rules_damaged_or_not_to_be_kept_are_made_again(package, parsed, monkeypatch):
    first, everything = parsed()
    place = code_digests._place(package)
    place.write_text(place.read_text().replace('"rules": "', '"rules": "0'))
    assert parsed() == (first, everything)
    for damage in ("", "[]", '{"rules": 1}', place.read_text()[:-20]):
        place.write_text(damage)
        assert parsed() == (first, everything)
    place.unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert parsed() == (first, everything) and not place.exists()


def test_a_package_that_cannot_be_written_has_a_version_all_the_same(package, parsed):
    first, everything = parsed()
    place = code_digests._place(package)
    place.unlink()
    place.mkdir()  # in the way: it can neither be read nor replaced
    assert parsed() == (first, everything)


def test_the_provenance_of_a_record_names_it():
    assert provenance_room.provenance()["training_code"] == training_code_version()
