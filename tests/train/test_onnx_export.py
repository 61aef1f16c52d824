"""ONNX files: does the graph say what the detector says, whatever the picture's size, and does it say what it needs?"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_lab.errors import SaltLabError, UserError
from salt_lab.spec.parts import SALT_HOSTS
from salt_lab.testing.host_models import CLASSES, build, small
from salt_lab.train.libraries import load_libraries
from salt_lab.train.onnx_export import check, files
from salt_lab.train.onnx_export.check import Session, check_sizes, picture
from salt_lab.train.onnx_export.deformable import deform_conv2d, modulated_deform_conv2d, plain_deformable
from salt_lab.train.onnx_export.files import Exported, export_detector
from salt_lab.train.onnx_export.graph import RawDetector
from salt_lab.train.onnx_export.heads import check_head
from salt_lab.train.onnx_export.selection import Selection, detections, level_rows

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NAMES = ("disc", "cross", "bar")
SCALE = (96, 64)
ODD = [(64, 96), (65, 33), (127, 200)]
BOTH = [(host, salt) for host in SALT_HOSTS for salt in (False, True)]


@functools.lru_cache(maxsize=4)
def detector(host: str, salt: bool) -> Any:
    """A small detector whose boxes, classes and qualities differ from place to place, so that there is something to select."""
    model = build(small(host, enabled=True) if salt else small(host)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def mmdet_says(model: Any, image_3HW: np.ndarray) -> Any:
    """The detector's own way from a picture (RGB, any numbers) to detections: preprocessor, network, selection."""
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(img_shape=image_3HW.shape[1:], scale_factor=(1.0, 1.0), ori_shape=image_3HW.shape[1:]))
    bgr = torch.from_numpy(image_3HW[::-1].copy())
    batch = model.data_preprocessor(dict(inputs=[bgr], data_samples=[sample]), False)
    with torch.no_grad():
        return model.predict(batch["inputs"], batch["data_samples"], rescale=False)[0].pred_instances


def rows_of(model: Any, height: int, width: int) -> list[int]:
    priors = model.bbox_head.prior_generator
    return level_rows(height, width, [stride[0] for stride in priors.strides], priors.num_base_priors)


def assert_same(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, theirs: Any) -> None:
    """The same detections; the order of scores that differ by rounding is free."""
    assert len(scores) == len(theirs) > 5
    np.testing.assert_allclose(scores, theirs.scores.numpy(), atol=2e-5)
    near = np.abs(boxes[:, None] - theirs.bboxes.numpy()[None]).max(-1) < 0.02
    near &= labels[:, None] == theirs.labels.numpy()[None]
    assert near.any(0).all() and near.any(1).all()


def export(host: str, salt: bool, folder: Path, with_nms: bool = False) -> Exported:
    return export_detector(detector(host, salt), folder / f"{host}-{salt}.onnx", NAMES, SCALE, with_nms)


@pytest.fixture(scope="module")
def selecting(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ATSS with SALT, ending in detections."""
    return export("atss", True, tmp_path_factory.mktemp("selecting"), with_nms=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """FCOS, which sees BGR and has a centerness, without the operator."""
    return export("fcos", False, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def salt_net(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """SALT-Net, all locations."""
    return export("salt_net", True, tmp_path_factory.mktemp("salt_net"))


class TestBeforeTheGraph:
    @pytest.mark.parametrize(("host", "salt"), BOTH)
    def test_all_locations_and_our_selection_make_mmdets_own_detections(self, host: str, salt: bool) -> None:
        model = detector(host, salt)
        image = picture(1, 71, 110, seed=1)
        boxes, scores, *quality = (output.numpy() for output in RawDetector(model)(torch.from_numpy(image)))
        assert boxes.shape[:2] == scores.shape[:2] and scores.shape[2] == CLASSES
        own = detections(boxes, scores, model.bbox_head.test_cfg, rows_of(model, 71, 110), *quality)[0]
        assert_same(*own, mmdet_says(model, image[0]))

    @pytest.mark.parametrize("host", ["atss", "fcos"])
    def test_the_network_sees_what_the_preprocessor_shows_it(self, host: str) -> None:
        model, image = detector(host, False), picture(1, 50, 70, seed=2)
        shown = model.data_preprocessor(dict(inputs=[torch.from_numpy(image[0, ::-1].copy())], data_samples=None), False)["inputs"]
        torch.testing.assert_close(RawDetector(model).prepare(torch.from_numpy(image)), shown)

    def test_pictures_of_a_batch_do_not_know_each_other(self) -> None:
        raw, images = RawDetector(detector("gfl", True)), torch.from_numpy(picture(3, 40, 61, seed=3))
        together, alone = raw(images), [raw(image[None]) for image in images]
        for number, output in enumerate(together):
            torch.testing.assert_close(output, torch.cat([each[number] for each in alone]), atol=1e-4, rtol=1e-4)

    def test_boxes_end_at_the_picture_not_at_its_padding(self) -> None:
        boxes = RawDetector(detector("reppoints", False))(torch.from_numpy(picture(1, 33, 50, seed=4)))[0]
        assert boxes[..., 0::2].max() == 50 and boxes[..., 1::2].max() == 33 and boxes.min() == 0

    def test_suppression_in_the_graph_is_the_one_outside(self) -> None:
        model = detector("fcos", True)
        image = torch.from_numpy(picture(2, 64, 96, seed=5))
        *raw, dets, labels = (output.numpy() for output in Selection(RawDetector(model), model.bbox_head.test_cfg)(image))
        for number, own in enumerate(detections(raw[0], raw[1], model.bbox_head.test_cfg, rows_of(model, 64, 96), raw[2])):
            found = len(own.scores_M)
            assert found > 5 and check.common(own, dets[number], labels[number]) == found
            assert (dets[number, found:, 4] == 0).all()

    def test_few_rows_of_a_level_are_all_candidates(self) -> None:
        cfg = dict(score_thr=0.1, nms_pre=2, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10)
        boxes = np.arange(6, dtype=np.float32)[:, None] * 100 + np.array([0, 0, 9, 9], np.float32)
        scores = np.array([0.9, 0.8, 0.7, 0.2, 0.05, 0.3], np.float32)[:, None]
        kept = detections(boxes[None], scores[None], cfg, [3, 2, 1])[0]
        assert kept.scores_M.round(2).tolist() == pytest.approx([0.9, 0.8, 0.3, 0.2])
        with pytest.raises(ValueError, match="sum to 5"):
            detections(boxes[None], scores[None], cfg, [3, 2])

    def test_a_head_with_a_selection_of_its_own_is_refused_by_name(self) -> None:
        with pytest.raises(UserError, match=r"model.bbox_head.type = PAAHead chooses its boxes in a way of its own"):
            check_head(build(small("paa")), "paa.py")

    def test_a_detector_of_two_stages_is_refused_by_name(self) -> None:
        load_libraries()
        from mmdet.models.detectors import FasterRCNN

        with pytest.raises(UserError, match="model.type = FasterRCNN: only detectors with one dense head"):
            check_head(FasterRCNN.__new__(FasterRCNN), "frcnn.py")


class TestDeformable:
    def tensors(self, groups: int = 2, deform_groups: int = 2) -> tuple[torch.Tensor, ...]:
        random = torch.Generator().manual_seed(0)
        x, weight, bias = (torch.randn(*shape, generator=random) for shape in ((2, 8, 11, 9), (4, 8 // groups, 3, 3), (4,)))
        offset = 2 * torch.randn(2, 18 * deform_groups, 6, 5, generator=random)
        return x, offset, torch.rand(2, 9 * deform_groups, 6, 5, generator=random), weight, bias

    def test_what_is_recorded_computes_what_mmcv_computes(self) -> None:
        load_libraries()
        from mmcv import ops

        x, offset, mask, weight, bias = self.tensors()
        form = dict(stride=2, padding=1, groups=2, deform_groups=2)
        first = deform_conv2d(x, offset, weight, **form)
        torch.testing.assert_close(first, ops.deform_conv2d(x, offset, weight, 2, 1, 1, 2, 2), atol=1e-5, rtol=1e-5)
        second = modulated_deform_conv2d(x, offset, mask, weight, bias, **form)
        torch.testing.assert_close(second, ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 2, 1, 1, 2, 2), atol=1e-5, rtol=1e-5)

    def test_mmcvs_own_functions_are_back_afterwards(self) -> None:
        model = detector("vfnet", False)
        import mmcv.ops.deform_conv as home

        before = home.deform_conv2d
        with plain_deformable(model):
            assert home.deform_conv2d is deform_conv2d
        assert home.deform_conv2d is before


class TestTheFile:
    def test_onnxruntime_agrees_at_sizes_that_were_never_recorded(self, selecting: Exported, plain: Exported) -> None:
        for exported in (selecting, plain):
            assert exported.agreement.box_error_px < 2e-3 and exported.agreement.score_error < 1e-5
            assert exported.any_batch and len(set(exported.agreement.sizes)) == 3

    @pytest.mark.parametrize("size", ODD)
    def test_salt_net_is_the_same_at_odd_and_even_sizes(self, size: tuple[int, int], salt_net: Exported) -> None:
        image = picture(2, *size, seed=8)
        theirs, ours = Session(salt_net.path)(image), RawDetector(detector("salt_net", True))(torch.from_numpy(image))
        assert np.abs(theirs["boxes"] - ours[0].numpy()).max() < 2e-3
        assert np.abs(theirs["scores"] - ours[1].numpy()).max() < 1e-5

    def test_its_detections_are_mmdets_own(self, selecting: Exported) -> None:
        image = picture(1, 90, 61, seed=9)
        found = Session(selecting.path)(image)
        assert set(found) == {"dets", "labels"} and found["dets"].shape == (1, 100, 5)
        some = found["dets"][0, :, 4] > 0
        assert_same(
            found["dets"][0, some, :4], found["dets"][0, some, 4], found["labels"][0, some], mmdet_says(detector("atss", True), image[0])
        )

    def test_its_outputs_and_its_metadata_alone_make_mmdets_detections(self, plain: Exported) -> None:
        image = picture(1, 90, 61, seed=9)
        session = Session(plain.path)
        facts, found = session.run.get_modelmeta().custom_metadata_map, session(image)
        rows = level_rows(90, 61, *(json.loads(facts[key]) for key in ("strides", "priors_per_location")), int(facts["size_divisor"]))
        own = detections(found["boxes"], found["scores"], json.loads(facts["test_cfg"]), rows, found["quality"])[0]
        assert_same(*own, mmdet_says(detector("fcos", False), image[0]))
        assert json.loads(facts["classes"]) == list(NAMES) and facts["channel_order"] == "RGB"
        assert float(facts["max_box_error_px"]) == pytest.approx(plain.agreement.box_error_px, rel=0.01)

    def test_it_has_only_operators_of_the_standard(self, selecting: Exported) -> None:
        import onnx

        graph = onnx.load(str(selecting.path))
        assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"} and graph.producer_name == "salt-lab"
        assert [(each.domain, each.version) for each in graph.opset_import] == [("", 16)]
        assert "GridSample" in {node.op_type for node in graph.graph.node}

    @pytest.mark.slow
    @pytest.mark.parametrize(("host", "salt"), BOTH)
    def test_every_host_with_and_without_the_operator(self, host: str, salt: bool, tmp_path: Path) -> None:
        exported = export(host, salt, tmp_path, with_nms=True)
        assert exported.any_batch and exported.agreement.good

    @pytest.mark.slow
    @pytest.mark.parametrize("host", ["ddod", "autoassign", "retinanet_9_anchors"])
    def test_comparison_hosts_too(self, host: str, tmp_path: Path) -> None:
        assert export(host, False, tmp_path).agreement.good

    @pytest.mark.slow
    def test_a_host_that_fixes_the_batch_is_exported_for_one_picture(self, tmp_path: Path) -> None:
        exported = export("tood", False, tmp_path)
        assert exported.agreement.good and not exported.any_batch
        assert Session(exported.path).run.get_inputs()[0].shape == [1, 3, "H", "W"]


class TestRefusals:
    def test_a_graph_that_disagrees_leaves_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "BOX_TOLERANCE_PX", -1.0)
        monkeypatch.setattr(files, "works_on_two", lambda session, module: True)
        with pytest.raises(SaltLabError, match="not written: onnxruntime against PyTorch on 64x96, 96x64, 43x49: boxes differ"):
            export("fcos", False, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_file_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "fcos-False.onnx").write_text("mine")
        with pytest.raises(UserError, match="exists and is not overwritten"):
            export("fcos", False, tmp_path)
        assert (tmp_path / "fcos-False.onnx").read_text() == "mine"

    def test_without_onnx_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"onnx and onnxruntime: not installed.*pip install 'salt-lab\[onnx\]'"):
            export("fcos", False, tmp_path)

    def test_class_names_must_fit_the_head(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"metainfo.classes: 2 names, but model.bbox_head.num_classes = 3"):
            export_detector(detector("fcos", False), tmp_path / "a.onnx", NAMES[:2], SCALE)

    def test_soft_suppression_has_no_node_of_its_own(self) -> None:
        with pytest.raises(UserError, match="soft_nms.*leave --nms out"):
            Selection(RawDetector(detector("fcos", False)), dict(nms=dict(type="soft_nms", iou_threshold=0.5), max_per_img=100))


def test_the_checks_sizes_follow_the_test_scale_and_stay_small() -> None:
    assert check_sizes((1333, 800)) == ((307, 512), (512, 307), (205, 257))
    assert check_sizes(SCALE) == ((64, 96), (96, 64), (43, 49))
