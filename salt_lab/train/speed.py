"""How long one image takes: from the decoded picture in memory to its boxes."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Fewest timed repeats, however slow the model.
LEAST_REPEATS = 3


class Latency(NamedTuple):
    """Milliseconds of one image."""

    median: float
    p10: float  #: a tenth of the repeats was faster
    p90: float  #: a tenth of the repeats was slower
    repeats: int  #: how many were timed


def latency_ms(
    model: nn.Module,
    height: int,
    width: int,
    *,
    warmup: int = 3,
    repeats: int = 20,
    image: Tensor | None = None,
    budget_s: float = math.inf,
) -> Latency:
    """Time the whole of inference on one image, batch 1: normalisation, padding, network, post-processing with NMS; not loading or resizing.

    The same span as mmdet's ``tools/analysis_tools/benchmark.py`` times. A GPU is waited for before the clock is read. On CPU the number
    belongs to the machine, to torch's number of threads and to whatever else runs there.

    Args:
        model: an mmdet detector, bare or wrapped; its training mode is left as it is.
        height, width: pixels of the image (the model may pad it to a multiple of 32).
        warmup: runs before the clock starts.
        repeats: timed runs.
        image: ``(3, h, w)`` picture, values 0-255, resized before the clock starts; None = mid-grey. How long NMS takes depends on
            what is found, so a real picture is the better measure.
        budget_s: stop repeating after this many seconds, warm-up included, once :data:`LEAST_REPEATS` are timed.
    """
    detector: Any = model.module if hasattr(model, "module") else model
    device, training = next(detector.parameters()).device, detector.training
    data = _one_image(height, width, image)
    started = time.perf_counter()
    try:
        detector.eval()
        with torch.no_grad():
            for _ in range(warmup):
                _run(detector, data, device)
                if time.perf_counter() - started > budget_s:
                    break
            seconds: list[float] = []
            while len(seconds) < repeats and (len(seconds) < LEAST_REPEATS or time.perf_counter() - started < budget_s):
                seconds.append(_run(detector, data, device))
    finally:
        detector.train(training)
    p10, median, p90 = (float(ms) for ms in np.percentile(1000 * np.array(seconds), [10, 50, 90]))
    return Latency(median, p10, p90, len(seconds))


def _run(detector: Any, data: dict[str, Any], device: torch.device) -> float:
    """Seconds of one inference. The data are copied first: a model may write into its samples."""
    batch = {"inputs": list(data["inputs"]), "data_samples": [sample.clone() for sample in data["data_samples"]]}
    _wait(device)
    started = time.perf_counter()
    detector.test_step(batch)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _one_image(height: int, width: int, image: Tensor | None) -> dict[str, Any]:
    from mmdet.structures import DetDataSample

    picture = torch.full((3, 1, 1), 127.0) if image is None else image.float()
    pixels = F.interpolate(picture[None], size=(height, width), mode="bilinear", align_corners=False)[0].round().to(torch.uint8)
    meta = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), img_id=0)
    return {"inputs": [pixels], "data_samples": [DetDataSample(metainfo=meta)]}


def inference_cost(runner: Any, height: int, width: int, budget_s: float = 1.0) -> dict[str, float]:
    """The finished model's inference time for its record, on the first validation picture: median ``ms``, ``p10_ms``, ``p90_ms``, and how
    it was measured: ``repeats``, ``threads`` (torch's, matter on CPU).

    Empty, with a line in the log, where it cannot be measured: a trained model is not thrown away for that.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmdet warns of its own deprecated names
            image = runner.val_dataloader.dataset[0]["inputs"]
            found = latency_ms(runner.model, height, width, image=image, budget_s=budget_s)
    except Exception as error:  # any model of mmdet can be a host
        runner.logger.warning(f"inference time not measured: {type(error).__name__}: {error}")
        return {}
    return {"ms": found.median, "p10_ms": found.p10, "p90_ms": found.p90, "repeats": found.repeats, "threads": torch.get_num_threads()}
