"""Contact sheets: pictures in a grid with captions, and tiles that show what a data set's annotations say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from salt_lab.data.sheet import Labelled
from salt_lab.errors import StoreError
from salt_lab.report.ink import DARK, GREY, PAPER, Image, Text, class_colour, hatch, outline, place_labels, shorten, text_size, write

TILE, GAP = 320, 8  # longest side of an image on a sheet of labelled images, space between tiles; pixels
_LETTERS = 11
IGNORED = "ignored or crowd"


def contact(images: Sequence[Image], columns: int, gap: int = GAP, captions: Sequence[str] | None = None) -> Image:
    """Tile images of any sizes into a white sheet, row by row, with a caption under each where given.

    All columns are as wide as the widest image, each row is as high as its highest; an image is centred in its tile.
    Raises ValueError for no images, fewer than one column, or not one caption per image.
    """
    if not images or columns < 1:
        raise ValueError(f"a contact sheet needs at least one image and one column, got {len(images)} images, {columns} columns")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"one caption per image, got {len(captions)} captions and {len(images)} images")
    columns, width = min(columns, len(images)), max(image.shape[1] for image in images)
    letters = max(_LETTERS, round(width / 40)) if captions is not None else 0
    line = round(letters * 1.7)
    rows = [images[at : at + columns] for at in range(0, len(images), columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + len(rows) * (gap + line) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    texts, top = [], gap
    for row, height in enumerate(heights):
        for column, image in enumerate(rows[row]):
            left = gap + column * (width + gap)
            y, x = top + (height - image.shape[0]) // 2, left + (width - image.shape[1]) // 2
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
            if captions is not None:
                words = shorten(captions[row * columns + column], letters, width)
                texts.append(Text(words, left + (width - text_size(words, letters)[0]) / 2, top + height + letters * 0.15, DARK))
        top += height + line + gap
    return write(sheet, texts, letters)


def labelled_sheet(samples: Sequence[Labelled], classes: Sequence[str]) -> Image:
    """A sheet of annotated images with captions and, under them, the classes that occur on it.

    A box has its class's colour and, where there is room, its name; an ignored or crowd box is grey and hatched.
    """
    tiles = [labelled_tile(sample, classes) for sample in samples]
    sheet = contact(tiles, math.ceil(math.sqrt(len(tiles))), captions=[sample.caption for sample in samples])
    there = sorted({int(label) for sample in samples for label in sample.labels_N[~sample.ignored_N]})
    return np.concatenate([sheet, _key(there, classes, any(sample.ignored_N.any() for sample in samples), sheet.shape[1])])


def labelled_tile(sample: Labelled, classes: Sequence[str], side: int = TILE) -> Image:
    """One annotated image, its longest side scaled to ``side`` pixels. Class marks, where it has any, are crosses."""
    scale = side / max(sample.image.shape[:2])
    size = [max(1, round(length * scale)) for length in sample.image.shape[1::-1]]
    tile = np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA), dtype=np.uint8)
    boxes = sample.boxes_N4 * scale
    for box in boxes[sample.ignored_N]:
        outline(tile, box, GREY)
        hatch(tile, box, 7.0, GREY, 1.0)
    kept = sorted(np.flatnonzero(~sample.ignored_N).tolist(), key=lambda at: -float(np.prod(boxes[at, 2:] - boxes[at, :2])))
    for at in kept:  # small boxes on top of large ones
        outline(tile, boxes[at], class_colour(int(sample.labels_N[at])))
    for at in kept if sample.marks_N2 is not None else ():
        x, y = sample.marks_N2[at] * scale  # type: ignore[index]
        if math.isfinite(x):
            cv2.drawMarker(tile, (round(x), round(y)), class_colour(int(sample.labels_N[at])), cv2.MARKER_CROSS, 9, 2, cv2.LINE_AA)
    labels = [(classes[int(sample.labels_N[at])], boxes[at], class_colour(int(sample.labels_N[at]))) for at in kept[::-1]]
    placed = place_labels(labels, _LETTERS, (tile.shape[1], tile.shape[0]), crowded="leave out")
    return write(tile, placed, _LETTERS)


def _key(labels: Sequence[int], classes: Sequence[str], ignored: bool, width: int) -> Image:
    """A strip that names the classes on the sheet in their colours; none where colours repeat, the names on the boxes must do there."""
    entries = [(classes[label], class_colour(label)) for label in labels]
    entries = (entries if len({colour for _, colour in entries}) == len(entries) else []) + ([(IGNORED, GREY)] if ignored else [])
    places, x, y, step = [], float(GAP), 0, 22
    for words, colour in entries:
        needed = 16 + text_size(words, _LETTERS)[0] + 10
        if x > GAP and x + needed > width:
            x, y = float(GAP), y + step
        places.append((words, colour, x, y))
        x += needed
    strip = np.full((y + step + 4 if entries else 0, width, 3), PAPER, np.uint8)
    for words, colour, left, top in places:
        box = (left, top + 7, left + 12, top + 19)
        outline(strip, box, colour)
        if words == IGNORED:
            hatch(strip, box, 5.0, colour, 1.0)
    return write(strip, [Text(words, left + 15, top + 5, DARK) for words, _, left, top in places], _LETTERS)


def write_sheet(picture: Image, out: Path) -> None:
    """Write a sheet to a picture file.

    Raises:
        StoreError: ``out`` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(out), picture)
    except (OSError, cv2.error) as error:
        raise StoreError(f"{out}: cannot write the contact sheet ({error}). Give a writable .png path") from None
    if not written:
        raise StoreError(f"{out}: cannot write the contact sheet. Give a writable .png path")
