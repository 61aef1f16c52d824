"""A probe's file: what goes in comes out, and what is no probe is said to be none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from salt_lab.errors import StoreError
from salt_lab.evaluate.probe_data import PROBE, Probe, arrays, dtype_of, empty_probe, load_probe, save_probe


def probe(rows: int = 5, points: int = 9) -> Probe:
    draw = np.random.default_rng(0)
    shapes = {name: (rows, *(points if size < 0 else size for size in row)) for name, row in arrays().items()}
    return Probe(**{name: draw.uniform(0, 90, shape).astype(dtype_of(name)) for name, shape in shapes.items()}, total=77)


def same(one: Probe, other: Probe) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name not in ("image_P",)) for name in arrays())


@pytest.mark.parametrize("points", [9, 0])
def test_what_is_written_is_read_again(tmp_path: Path, points: int) -> None:
    written = probe(points=points)
    save_probe(tmp_path / PROBE, written)
    found = load_probe(tmp_path / PROBE)
    assert same(found, written) and found.total == 77 and found.note == "" and len(found) == 5 and found.has_salt
    assert found.cls_points_PK2.shape == (5, points, 2)
    assert [path.name for path in tmp_path.iterdir()] == [PROBE]


def test_the_same_probe_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_probe(tmp_path / name, probe())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_model_that_cannot_be_probed_leaves_the_reason(tmp_path: Path) -> None:
    save_probe(tmp_path / PROBE, empty_probe("TOODHead assigns in a way of its own"))
    found = load_probe(tmp_path / PROBE)
    assert len(found) == 0 and found.note == "TOODHead assigns in a way of its own" and not found.has_salt


@pytest.mark.parametrize("keep", [0, 3, 200, 2000, -40, -1])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, keep: int) -> None:
    save_probe(tmp_path / PROBE, probe())
    whole = (tmp_path / PROBE).read_bytes()
    (tmp_path / PROBE).write_bytes(whole[:keep])
    with pytest.raises(StoreError, match=rf"{PROBE}: damaged \(.+\)\. salt-lab probe STUDY"):
        load_probe(tmp_path / PROBE)


def test_arrays_that_do_not_go_together_are_damage_too(tmp_path: Path) -> None:
    for wrong in (
        replace(probe(), score_P=np.zeros(4, np.float32)),
        replace(probe(), object_box_P4=np.zeros((5, 3), np.float32)),
        replace(probe(), cls_points_PK2=np.zeros((5, 18), np.float32)),
    ):
        save_probe(tmp_path / PROBE, wrong)
        with pytest.raises(StoreError, match="has shape"):
            load_probe(tmp_path / PROBE)


def test_a_file_that_is_not_there_and_one_of_a_later_version_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such probe"):
        load_probe(tmp_path / PROBE)
    np.savez(tmp_path / PROBE, format=np.int32(99))
    with pytest.raises(StoreError, match="format = 99.*update the lab"):
        load_probe(tmp_path / PROBE)
    np.savez(tmp_path / PROBE, scores=np.zeros(3))
    with pytest.raises(StoreError, match="damaged"):
        load_probe(tmp_path / PROBE)
