"""The points behind a detection: every SALT host, every switch of the operator, and detectors that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from salt_lab.compose import compose
from salt_lab.errors import UserError
from salt_lab.report.draw import side_points
from salt_lab.spec.parts import SALT_HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.testing.host_contract import build, small
from salt_lab.train import points as points_module
from salt_lab.train.infer import Inferencer, read_picture
from salt_lab.train.points import PointSets, detect_with_points, limits

SIZE = (64, 96)
META = dict(img_shape=SIZE, pad_shape=SIZE, batch_input_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))


def eager(trial: Trial, seed: int = 0) -> Any:
    """The trial's untrained model, made to report what it sees however unsure, with operator weights large enough to spread its points."""
    model = build(trial).eval()
    model.bbox_head.test_cfg.update(score_thr=0.0, max_per_img=12)
    torch.manual_seed(seed)
    if hasattr(model.bbox_head, "salt"):
        for name, parameter in model.bbox_head.salt.named_parameters():
            if "out" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def noise() -> torch.Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def look(model: Any, at_least: float = 0.0) -> tuple[Any, PointSets]:
    return detect_with_points(model, noise(), META, at_least)


@pytest.mark.parametrize("host", SALT_HOSTS)
class TestEveryHost:
    def test_a_detections_score_is_the_one_at_the_location_its_points_are_read_from(
        self, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, kept = eager(small(host, enabled=True)), []
        original = points_module.points_at
        monkeypatch.setattr(
            points_module, "points_at", lambda head, aligned, origins: kept.extend(origins) or original(head, aligned, origins)
        )
        found, _ = look(model)
        with torch.no_grad():
            cls_maps, _, *factors = model.bbox_head(model.extract_feat(noise()))
        assert len(kept) == len(found.scores) >= 3
        for (level, row, column), score, label in zip(kept, found.scores, found.labels, strict=True):
            expected = cls_maps[level][0, label, row, column].sigmoid()
            if factors:
                expected = expected * factors[0][level][0, 0, row, column].sigmoid()
            assert float(score.detach()) == pytest.approx(float(expected), rel=1e-4)

    def test_the_boxes_are_those_that_the_detector_reports_without_points(self, host: str) -> None:
        from mmdet.structures import DetDataSample

        model = eager(small(host, enabled=True))
        with torch.no_grad():
            plain = model.predict(noise(), [DetDataSample(metainfo=META)], rescale=False)[0].pred_instances
        found, _ = look(model)
        torch.testing.assert_close(found.bboxes.detach(), plain.bboxes)
        torch.testing.assert_close(found.scores.detach(), plain.scores)
        assert torch.equal(found.labels, plain.labels)

    def test_r_points_lie_in_the_coarse_box_four_of_them_on_its_sides(self, host: str) -> None:
        _, sets = look(eager(small(host, enabled=True)))
        assert sets.r_points is not None and sets.c_points is not None and sets.r_points.shape == sets.c_points.shape
        assert sets.r_points.shape[0] >= 3 and sets.r_points.shape[1:] == (9, 2)
        x1, y1, x2, y2 = (side[:, None] for side in sets.coarse_N4.unbind(1))
        x, y = sets.r_points.unbind(-1)
        assert float((sets.coarse_N4[:, 2:] - sets.coarse_N4[:, :2]).max()) > 1, "the coarse boxes must have an extent to test anything"
        assert ((x >= x1 - 1e-3) & (x <= x2 + 1e-3) & (y >= y1 - 1e-3) & (y <= y2 + 1e-3)).all()
        left, top, right, bottom = side_points(9)
        for value, side in ((x[:, left], x1), (y[:, top], y1), (x[:, right], x2), (y[:, bottom], y2)):
            torch.testing.assert_close(value, side[:, 0], atol=1e-3, rtol=1e-5)


class TestSwitches:
    @pytest.mark.parametrize(
        ("toggles", "r_points", "c_points", "said"),
        [
            ({}, True, True, ""),
            ({"cls_at": "r_points"}, True, False, "at the R-points"),
            ({"cls_at": "cell"}, True, False, "at the cell"),
            ({"reg_at": "cell"}, True, True, "reg_at: cell"),
            ({"reg_at": "cell", "cls_at": "cell"}, False, False, "only the coarse box"),
        ],
    )
    def test_what_the_operator_does_not_place_is_none_and_said(
        self, toggles: dict[str, str], r_points: bool, c_points: bool, said: str
    ) -> None:
        model = eager(small("atss", enabled=True, **toggles))
        _, sets = look(model)
        assert ((sets.r_points is not None), (sets.c_points is not None)) == (r_points, c_points)
        assert torch.isfinite(sets.coarse_N4).all()
        assert said in "; ".join(limits(model.bbox_head)) and bool(limits(model.bbox_head)) == bool(said)

    def test_boxes_of_a_level_without_the_operator_have_no_points(self) -> None:
        model = eager(small("gfl", enabled=True, levels=(4, 5)))
        found, sets = look(model)
        there = torch.isfinite(sets.coarse_N4).all(1)
        assert 0 < int(there.sum()) < len(found.scores)
        assert sets.r_points is not None and torch.equal(torch.isfinite(sets.r_points).all(-1).all(-1), there)
        assert "P4, P5 only" in limits(model.bbox_head)[0]

    def test_points_are_looked_for_only_behind_boxes_with_the_score_asked_for(self) -> None:
        model = eager(small("atss", enabled=True))
        scores = look(model)[0].scores.tolist()
        _, sets = look(model, at_least=scores[3])
        assert torch.isfinite(sets.coarse_N4).all(1).tolist() == [score >= scores[3] for score in scores]

    def test_a_score_of_exactly_one_still_leads_to_its_location(self) -> None:
        """Its sigmoid is flat in float32: the gradient of the score is zero everywhere."""
        model = eager(small("gfl", enabled=True))
        head = model.bbox_head
        torch.nn.init.constant_(head.gfl_cls.bias, 30.0)
        with torch.no_grad():  # boxes of about two cells, so that they are not all cut to the image
            head.gfl_reg.bias.view(4, -1)[:, 1] = 30.0
        found, sets = look(model)
        assert (found.scores == 1).all() and len(found.scores) == 12
        x, y = ((found.bboxes[:, at] + found.bboxes[:, at + 2]).detach() / 2 for at in (0, 1))
        assert torch.isfinite(sets.coarse_N4).all()
        assert (sets.coarse_N4[:, 0] <= x + 1e-3).all() and (sets.coarse_N4[:, 3] >= y - 1e-3).all()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Config and checkpoint of a small untrained model of a host."""
    folder = tmp_path_factory.mktemp("models")

    def make(host: str, **salt: Any) -> tuple[str, str]:
        trial = small(host, **salt)
        config, checkpoint = folder / f"{host}.py", folder / f"{host}.pth"
        compose(trial).dump(config)
        from mmdet.registry import MODELS

        from salt_lab.train.infer import read_config, strip_init
        from salt_lab.train.libraries import load_libraries

        load_libraries()
        torch.manual_seed(0)
        torch.save({"state_dict": MODELS.build(strip_init(read_config(str(config)).model)).state_dict()}, checkpoint)
        return str(config), str(checkpoint)

    return make


@pytest.fixture
def picture(tmp_path: Any) -> str:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    return str(tmp_path / "a.png")


def eager_inferencer(files: tuple[str, str]) -> Inferencer:
    from salt_lab.train.infer import read_config

    small_images = read_config(files[0])
    for step in small_images.test_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = (128, 96)
    small_images.dump(files[0])
    ready = Inferencer(*files, device="cpu")
    ready.model.bbox_head.test_cfg.update(score_thr=0.0, max_per_img=10)
    return ready


def test_a_file_and_its_pixels_give_the_same_boxes_in_the_images_own_pixels(files: Any, picture: str) -> None:
    ready = eager_inferencer(files("atss", enabled=True))
    one, other = ready(picture), ready(read_picture(picture), points=False)
    np.testing.assert_allclose(one.boxes_N4, other.boxes_N4, atol=1e-3)
    assert one.boxes_N4[:, 2].max() <= 90.01 and one.r_points is not None and other.r_points is None


@pytest.mark.parametrize("host", ["paa", "tood", "retinanet_9_anchors"])
def test_a_detector_with_its_own_post_processing_is_looked_at_in_its_own_way(host: str, files: Any, picture: str) -> None:
    ready = eager_inferencer(files(host))
    result = ready(picture)
    assert len(result.scores_N) and result.r_points is None and "no SALT operator" in ready.limits[0]


def test_a_file_that_is_no_picture_is_named(tmp_path: Any) -> None:
    (tmp_path / "not.png").write_text("words")
    with pytest.raises(UserError, match=r"not\.png: cannot be read as a picture"):
        read_picture(str(tmp_path / "not.png"))
