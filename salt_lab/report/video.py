"""Videos in and out: every frame of one file, and frames into another. OpenCV; no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from salt_lab.errors import UserError

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # OpenCV's own wheels bring both
USUAL_FPS = 25.0  # for files that do not say


class VideoReader:
    """The frames of a video file, (H, W, 3) uint8 BGR, one after the other.

    Attributes:
        fps: frames a second; 25 where the file does not say.
        announced: how many frames the file says it has; None where it does not. An estimate: some files have fewer.

    Raises:
        UserError: the file cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        with quiet_opencv():
            self._capture = cv2.VideoCapture(str(path))
        self.path = path
        if not self._capture.isOpened():
            raise UserError(
                f"{path}: cannot be read as a video: it is none, is damaged, or needs a codec that OpenCV lacks; save it as .mp4"
            )
        fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = float(fps) if 0 < fps < 1000 else USUAL_FPS
        self.announced = int(count) if count > 0 else None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        frames = 0
        try:
            while True:
                with quiet_opencv():
                    there, frame = self._capture.read()
                if not there:
                    break
                frames += 1
                yield frame
        finally:
            self._capture.release()
        if not frames:
            raise UserError(f"{self.path}: a video without a single frame that can be read")


class VideoWriter:
    """Frames into a file, at the size of the first; used as ``with VideoWriter(path, fps) as video: video.add(frame)``.

    The file appears under its name when all is written; after an error or an interrupt there is none.

    Args:
        path: .mp4 (MPEG-4) or .avi (Motion JPEG).
        fps: frames a second.

    Raises:
        UserError: the file cannot be written, or OpenCV has no such codec here.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer: Any = None
        self._size: tuple[int, ...] = ()

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame; it must be as large as the first. A last odd row or column is repeated: the codecs want even sizes."""
        frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
        if self._writer is None:
            self._writer, self._size = self._open(frame.shape[1], frame.shape[0]), frame.shape[:2]
        if frame.shape[:2] != self._size:
            raise ValueError(f"{self.path}: a frame of {frame.shape[:2]} in a video of {self._size}")
        self._writer.write(frame)

    def _open(self, width: int, height: int) -> Any:
        code = CODECS[self.path.suffix.lower()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()
        except OSError as error:
            raise UserError(f"-o {self.path}: cannot be written ({error.strerror}); give a file in a writable folder") from error
        with quiet_opencv():
            writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*code), self.fps, (width, height))
        if not writer.isOpened():
            other = next(suffix for suffix in CODECS if suffix != self.path.suffix.lower())
            raise UserError(
                f"-o {self.path}: OpenCV here cannot write {width} x {height} video with codec {code}: try a name ending in {other}"
            )
        return writer

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._writer is not None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV's warnings about files stay off the terminal; what went wrong is said by whoever asked."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read by OpenCV when it first opens a video
    before = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(before)
