"""The decoded cache keeps pixels to the bit, serves none that it cannot vouch for, and is whole or not there."""

import os

import cv2
import numpy as np
import pytest

from salt_lab.data.decoded import DecodedImages, Picture, cache_key, most_bytes, write_decoded
from salt_lab.errors import DataError


def decode(path):
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(pixels, None, fx=0.5, fy=0.5), pixels.shape[:2]


def draw(path, seed=0, height=20, width=30):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


@pytest.fixture
def pictures(tmp_path):
    files = [draw(tmp_path / f"{seed}.png", seed, 20 + 2 * seed, 30) for seed in range(4)]
    return [Picture("val" if path.stem == "3" else "train", path.name, path) for path in files]


@pytest.fixture
def cache(tmp_path, pictures):
    write_decoded(tmp_path / "decoded" / "k", "k", pictures, decode)
    return tmp_path / "decoded" / "k"


def test_every_picture_comes_back_to_the_bit_with_its_size_before_resizing(cache, pictures):
    decoded = DecodedImages(cache, "k")
    assert len(decoded) == 4 and decoded.bytes == sum(decode(picture.path)[0].size for picture in pictures)
    for picture in pictures:
        pixels, original = decoded.read(*picture)
        wanted, size = decode(picture.path)
        assert np.array_equal(pixels, wanted) and pixels.flags.c_contiguous and original == size


def test_who_paints_on_a_picture_paints_on_a_copy(cache, pictures):
    decoded = DecodedImages(cache, "k")
    decoded.read(*pictures[0])[0][:] = 0
    assert np.array_equal(decoded.read(*pictures[0])[0], decode(pictures[0].path)[0])


def test_a_picture_of_another_name_or_split_is_not_there(cache, pictures):
    decoded = DecodedImages(cache, "k")
    assert decoded.read("train", "9.png", pictures[0].path) is None
    assert decoded.read("val", "0.png", pictures[0].path) is None


def test_a_picture_whose_file_was_replaced_is_not_served(cache, pictures):
    path = pictures[1].path
    size = path.stat().st_size
    draw(path, seed=77, height=22)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))  # of the same size, which a fingerprint cannot see
    os.utime(path, ns=(1, 1))
    decoded = DecodedImages(cache, "k")
    assert decoded.read(*pictures[1]) is None and decoded.read(*pictures[0]) is not None


def test_a_picture_whose_file_was_only_copied_is_served(cache, pictures):
    os.utime(pictures[1].path, ns=(1, 1))
    assert DecodedImages(cache, "k").read(*pictures[1]) is not None


def test_a_picture_whose_file_is_gone_is_not_served(cache, pictures):
    pictures[0].path.unlink()
    assert DecodedImages(cache, "k").read(*pictures[0]) is None


def test_a_flipped_bit_is_not_served_and_makes_the_next_process_decode_anew(cache, pictures):
    with (cache / "pixels.bin").open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    decoded = DecodedImages(cache, "k")
    assert decoded.read(*pictures[0]) is None
    assert decoded.read(*pictures[1]) is not None, "the others are still good"
    with pytest.raises(DataError, match="no decoded pictures"):
        DecodedImages(cache, "k")
    write_decoded(cache, "k", pictures, decode)
    assert DecodedImages(cache, "k").read(*pictures[0]) is not None


def test_a_file_cut_short_is_refused(cache):
    os.truncate(cache / "pixels.bin", 100)
    with pytest.raises(DataError, match=r"pixels.bin: has 100 bytes, its index says"):
        DecodedImages(cache, "k")


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace(b"0.png", b"1.png"), lambda text: b""])
def test_a_damaged_index_is_refused(cache, damage):
    index = cache / "index.json"
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(DataError, match=r"index.json: the index .* is damaged"):
        DecodedImages(cache, "k")


def test_a_cache_made_for_something_else_is_refused(cache):
    with pytest.raises(DataError, match="decoded for 'k', not for 'other'"):
        DecodedImages(cache, "other")


def test_a_picture_that_cannot_be_decoded_is_left_out(tmp_path, pictures):
    pictures[2].path.write_bytes(b"no picture")
    write_decoded(tmp_path / "d", "k", pictures, decode)
    decoded = DecodedImages(tmp_path / "d", "k")
    assert len(decoded) == 3 and decoded.read(*pictures[2]) is None


def test_a_cache_that_was_not_finished_is_not_there_and_leaves_nothing(tmp_path, pictures):
    def full(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_decoded(tmp_path / "decoded" / "k", "k", pictures, full)
    assert list((tmp_path / "decoded").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(cache, pictures):
    left = cache.parent / ".k-abc"
    left.mkdir()
    (left / "pixels.bin").write_bytes(b"half")
    write_decoded(cache, "k", pictures, decode)
    assert [path.name for path in cache.parent.iterdir()] == ["k"]


def test_who_has_it_mapped_goes_on_when_the_cache_is_deleted_or_made_anew(cache, pictures):
    decoded = DecodedImages(cache, "k")
    write_decoded(cache, "k", pictures[:1], decode)
    assert decoded.read(*pictures[3]) is not None


def test_a_data_set_without_pictures_has_an_empty_cache(tmp_path):
    write_decoded(tmp_path / "d", "k", [], decode)
    assert len(DecodedImages(tmp_path / "d", "k")) == 0


def test_the_key_changes_with_data_size_and_versions():
    made_by = {"scale": (96, 96), "cv2": "4.0"}
    keys = {cache_key("marks-1", made_by), cache_key("marks-2", made_by), cache_key("marks-1", made_by | {"cv2": "4.1"})}
    assert len(keys) == 3 and cache_key("marks-1", made_by).startswith("marks-1-")


def test_the_largest_size_is_known_without_opening_a_picture():
    assert most_bytes(118_287, 1333, 800) / 2**30 == pytest.approx(352.4, abs=0.1)
