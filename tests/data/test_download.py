"""COCO from a server: whole, after an interruption, damaged, without network, without room; and nothing of anybody's is overwritten.

The server is real (http.server, on this machine, with Range); the archives are tiny and in COCO's layout.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import re
import shutil
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from salt_lab.data import download as download_module
from salt_lab.data import unpack as unpack_module
from salt_lab.data.download import download, most_bytes
from salt_lab.data.official import COCO_2017, Archive, Release, Split, check_copy
from salt_lab.data.unpack import RESERVE, unpack
from salt_lab.errors import DataError

IMAGES = {"train2017": 6, "val2017": 3}


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def annotations(split: str) -> bytes:
    names = [f"{number:012d}.jpg" for number in range(1, IMAGES[split] + 1)]
    images = [{"id": number, "file_name": name, "width": 32, "height": 24} for number, name in enumerate(names, 1)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 8, 9], "area": 72, "iscrowd": 0}]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def contents() -> dict[str, bytes]:
    """Address on the server -> bytes."""
    folders = {split: {f"{split}/{n:012d}.jpg": picture(n) for n in range(1, number + 1)} for split, number in IMAGES.items()}
    lists = {f"annotations/instances_{split}.json": annotations(split) for split in IMAGES}
    files = {"annotations/annotations_trainval2017.zip": zipped(lists)}
    return files | {f"zips/{split}.zip": zipped(folders[split]) for split in ("val2017", "train2017")}


def release_of(files: dict[str, bytes]) -> Release:
    folders = ("annotations", "val2017", "train2017")
    archives = tuple(
        Archive(path, len(content), hashlib.sha256(content).hexdigest(), folder, len(content))
        for (path, content), folder in zip(files.items(), folders, strict=True)
    )
    splits = tuple(Split(name, f"annotations/instances_{name}.json", number) for name, number in IMAGES.items())
    return Release(archives, splits, categories=1)


class Server(ThreadingHTTPServer):
    """Serves ``files``. ``cut``: bytes after which each answer breaks off; ``ranges``: does it resume; ``asked``: what it was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.ranges, self.busy = dict(files), [], True, 0
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self, name: str) -> list[str | None]:
        return [ranges for verb, path, ranges in self.asked if verb == "GET" and path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.command, self.path, wanted))
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None or (body and self.server.busy):
            self.server.busy -= content is not None
            self.send_error(404 if content is None else 503)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:][: self.server.cut.pop(0) if self.server.cut else None])


class Heard:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[list] = []
        self.said: list[str] = []

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.steps.append([what, total, done])

    def advance(self, number: int) -> None:
        self.steps[-1][2] += number

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return contents()


@pytest.fixture
def release(files: dict[str, bytes]) -> Release:
    return release_of(files)


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server(files)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def fetch(root: Path, server: Server, release: Release, **more) -> list[str]:
    return download(root, server.address, release=release, wait=lambda seconds: None, **more)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_whole_copy_is_what_the_archives_hold_and_nothing_else(tmp_path, server, release, files):
    heard = Heard()
    assert fetch(tmp_path / "coco", server, release, progress=heard) == ["annotations", "val2017", "train2017"]
    expected = {
        name: archive.read(name)
        for content in files.values()
        for archive in [zipfile.ZipFile(io.BytesIO(content))]
        for name in archive.namelist()
    }
    assert tree(tmp_path / "coco") == expected
    for what, total, done in heard.steps:
        assert done == total or what.startswith("unpacking"), "every step's bytes add up"
    report = check_copy(tmp_path / "coco", release)
    assert report.images == IMAGES and report.opened == 9 and report.boxes == {"train2017": 1, "val2017": 1}


def test_a_copy_that_is_whole_is_not_fetched_again_even_without_a_server(tmp_path, server, release):
    fetch(tmp_path, server, release)
    before, server.asked = tree(tmp_path), []
    assert fetch(tmp_path, server, release) == [] and server.asked == [] and tree(tmp_path) == before


def test_a_broken_connection_is_gone_on_from_where_it_broke(tmp_path, server, release):
    server.cut = [None, 1000, 500]  # the annotations come whole; val2017 breaks twice
    heard = Heard()
    fetch(tmp_path, server, release, progress=heard)
    assert server.fetched("/val2017.zip") == [None, "bytes=1000-", "bytes=1500-"]
    assert check_copy(tmp_path, release).images == IMAGES
    assert "going on from 1000 of" in heard.said[0]


def test_an_interrupted_command_is_gone_on_from_by_the_next(tmp_path, server, release):
    class Interrupted(Heard):
        def advance(self, number: int) -> None:
            super().advance(number)
            if self.steps[-1][0] == "fetching train2017.zip":
                raise KeyboardInterrupt

    server.cut = [None, None, 2000]
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, server, release, progress=Interrupted())
    assert (tmp_path / ".download" / "train2017.zip.part").stat().st_size == 2000 and not (tmp_path / "train2017").exists()
    server.asked = []
    assert fetch(tmp_path, server, release) == ["train2017"]
    assert server.fetched("/train2017.zip") == ["bytes=2000-"] and server.fetched("/val2017.zip") == []
    assert check_copy(tmp_path, release).images == IMAGES and not (tmp_path / ".download").exists()


def test_a_server_that_cannot_resume_is_asked_from_the_beginning(tmp_path, server, release):
    server.cut, server.ranges = [None, 1000], False
    heard = Heard()
    fetch(tmp_path, server, release, progress=heard)
    assert check_copy(tmp_path, release).images == IMAGES and any("cannot resume" in text for text in heard.said)


def test_a_busy_server_is_asked_again_and_given_up_in_the_end_with_what_was_fetched_kept(tmp_path, server, release):
    server.busy = 3
    fetch(tmp_path / "patient", server, release)
    server.busy = 100
    with pytest.raises(DataError, match=r"broke off 5 times in a row \(the server answered 503.*kept"):
        fetch(tmp_path / "given up", server, release)


def test_a_file_with_a_wrong_checksum_is_never_unpacked_and_the_next_call_fetches_it_anew(tmp_path, server, release, files):
    good = server.files["zips/val2017.zip"]
    server.files["zips/val2017.zip"] = good[:700] + bytes([good[700] ^ 1]) + good[701:]
    with pytest.raises(DataError, match=r"val2017\.zip: damaged on its way.*SHA-256.*run the same command again"):
        fetch(tmp_path, server, release)
    assert not (tmp_path / "val2017").exists() and not list((tmp_path / ".download").glob("val2017*"))
    server.files["zips/val2017.zip"] = good
    assert fetch(tmp_path, server, release) == ["val2017", "train2017"]
    assert check_copy(tmp_path, release).images == IMAGES


def test_a_mirror_with_another_file_or_without_it_is_refused_before_anything_is_fetched(tmp_path, server, release, files):
    server.files["zips/train2017.zip"] += b"more"
    with pytest.raises(DataError, match=r"train2017\.zip: has \d+ bytes; the official file has \d+.*--from"):
        fetch(tmp_path / "coco", server, release)
    del server.files["zips/train2017.zip"]
    with pytest.raises(DataError, match=r"train2017\.zip: the server answered 404"):
        fetch(tmp_path / "coco", server, release)
    assert not (tmp_path / "coco").exists() and all(verb == "HEAD" for verb, _, _ in server.asked)


def test_without_network_it_says_so_at_once_and_what_to_do(tmp_path, release):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers there
        began = time.monotonic()
        with pytest.raises(DataError, match=r"cannot be reached.*refused.*--from.*--check"):
            download(tmp_path / "coco", f"http://127.0.0.1:{closed.getsockname()[1]}", release=release)
    assert time.monotonic() - began < download_module.CONNECT_SECONDS + 1 and not (tmp_path / "coco").exists()


def test_too_small_a_disk_is_found_before_a_byte_is_fetched(tmp_path, server, release, monkeypatch):
    need = most_bytes(tmp_path, release.archives, keep_zips=False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda _: usage._replace(free=need + RESERVE - 1))
    with pytest.raises(DataError, match=r"COCO with its zip files takes .* but the disk has .* free.*--root"):
        fetch(tmp_path, server, release)
    assert all(verb == "HEAD" for verb, _, _ in server.asked)
    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda _: usage._replace(free=need + RESERVE))
    assert len(fetch(tmp_path, server, release)) == 3


def test_the_disk_holds_one_zip_beside_its_content_or_all_of_them_when_they_are_kept(tmp_path):
    small, val, train = COCO_2017.archives
    assert most_bytes(tmp_path, COCO_2017.archives, keep_zips=False) == small.unpacked + val.unpacked + train.size + train.unpacked
    everything = sum(archive.size + archive.unpacked for archive in COCO_2017.archives)
    assert most_bytes(tmp_path, COCO_2017.archives, keep_zips=True) == everything


def test_a_disk_that_fills_up_meanwhile_keeps_what_was_fetched(tmp_path, server, release):
    class Full(Heard):
        def advance(self, number: int) -> None:
            if self.steps[-1][0] == "fetching val2017.zip":
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"val2017\.zip\.part: the disk is full. What was fetched is kept"):
        fetch(tmp_path, server, release, progress=Full())
    assert (tmp_path / ".download" / "val2017.zip.part").stat().st_size > 0
    assert fetch(tmp_path, server, release) == ["val2017", "train2017"]


def test_a_root_that_cannot_be_a_folder_is_named(tmp_path, server, release):
    (tmp_path / "coco").write_text("in the way")
    with pytest.raises(DataError, match="coco.*--root"):
        fetch(tmp_path / "coco", server, release)


def test_kept_zip_files_are_unpacked_again_without_a_server(tmp_path, server, release):
    fetch(tmp_path, server, release, keep_zips=True)
    shutil.rmtree(tmp_path / "train2017")
    server.asked = []
    assert fetch(tmp_path, server, release) == ["train2017"] and server.asked == []
    assert check_copy(tmp_path, release).images == IMAGES


def test_a_folder_that_is_there_but_not_whole_is_left_as_it_is(tmp_path, server, release):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"val2017: has 1 images; the release has 3\. It is left as it is"):
        fetch(tmp_path, server, release)
    assert tree(tmp_path) == {"val2017/mine.jpg": b"mine"} and server.asked == []


def test_two_processes_do_not_fetch_into_one_folder(tmp_path, server, release):
    scratch = tmp_path / ".download"
    scratch.mkdir()
    with (scratch / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is fetching"):
            fetch(tmp_path, server, release)
    assert len(fetch(tmp_path, server, release)) == 3


def test_what_a_killed_process_left_half_unpacked_is_swept_away(tmp_path, server, release):
    left = tmp_path / ".download" / "unpack-killed" / "train2017"
    left.mkdir(parents=True)
    fetch(tmp_path, server, release, keep_zips=True)
    assert sorted(path.name for path in (tmp_path / ".download").iterdir()) == [
        "annotations_trainval2017.zip", "lock", "train2017.zip", "val2017.zip",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/evil.jpg", "train2017/../../evil.jpg", "other/evil.jpg", "train2017\\evil.jpg", "c:/evil.jpg"]
)
def test_a_zip_that_points_elsewhere_is_refused_whole(tmp_path, name):
    file = tmp_path / "train2017.zip"
    file.write_bytes(zipped({"train2017/1.jpg": b"good", name: b"evil"}))
    (tmp_path / "root" / "scratch").mkdir(parents=True)
    with pytest.raises(DataError, match="not a plain file in train2017/"):
        unpack(file, "train2017", tmp_path / "root", tmp_path / "root" / "scratch")
    assert tree(tmp_path / "root") == {} and not (tmp_path / "evil.jpg").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("train2017/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"link\.jpg"):
        unpack(tmp_path / "train2017.zip", "train2017", tmp_path, tmp_path)
    assert not (tmp_path / "train2017").exists()


def test_a_zip_whose_content_does_not_fit_its_crc_leaves_nothing_behind(tmp_path):
    content = bytearray(zipped({"train2017/1.jpg": b"A" * 5000, "train2017/2.jpg": b"B" * 5000}))
    content[content.index(b"B" * 100) + 50] ^= 1
    (tmp_path / "train2017.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged zip file \(Bad CRC-32 for file 'train2017/2\.jpg'\)"):
        unpack(tmp_path / "train2017.zip", "train2017", tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train2017.zip"]


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "train2017.zip").write_bytes(zipped({"train2017/1.jpg": b"new"}))
    (tmp_path / "train2017").mkdir()
    with pytest.raises(DataError, match="is there already and is left as it is"):
        unpack(tmp_path / "train2017.zip", "train2017", tmp_path, tmp_path)
    assert list((tmp_path / "train2017").iterdir()) == []


@pytest.fixture
def copy(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """A whole copy that nobody fetched."""
    for content in files.values():
        zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path)
    return tmp_path


def test_a_check_names_every_damage_of_a_copy(copy, release):
    (copy / "val2017" / "000000000002.jpg").write_bytes(b"no picture")
    (copy / "train2017" / "000000000004.jpg").write_bytes(b"")
    (copy / "train2017" / "000000000005.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    with pytest.raises(DataError) as caught:
        check_copy(copy, release)
    text = str(caught.value)
    for part in (
        "train2017: has 5 images; the release has 6", "missing or empty, such as 000000000004.jpg", "000000000002.jpg: not a readable image",
        "000000000005.jpg: is 9 x 9; the annotation file says 32 x 24", "4 problems", f"salt-lab data coco --root {copy}",
    ):  # fmt: skip
        assert part in text, part


def test_a_check_sees_another_annotation_file_a_missing_one_and_a_missing_folder(copy, release):
    file = copy / "annotations" / "instances_val2017.json"
    file.write_bytes(annotations("train2017"))
    with pytest.raises(DataError, match="lists 6 images and 1 categories; the release has 3 and 1"):
        check_copy(copy, release)
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read as a COCO annotation file"):
        check_copy(copy, release)
    file.unlink()
    with pytest.raises(DataError, match=r"has no instances_val2017\.json"):
        check_copy(copy, release)
    shutil.rmtree(copy / "train2017")
    with pytest.raises(DataError, match="train2017: is missing"):
        check_copy(copy, release)
    with pytest.raises(DataError, match="no such folder"):
        check_copy(copy / "elsewhere", release)


def test_the_official_release_is_the_one_that_papers_train_on():
    assert [(split.folder, split.images) for split in COCO_2017.splits] == [("train2017", 118_287), ("val2017", 5_000)]
    assert sum(archive.size for archive in COCO_2017.archives) == 20_405_354_669 and COCO_2017.categories == 80
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in COCO_2017.archives)
    assert COCO_2017.archives[1].name == "val2017.zip"
