"""The probe: what it says of positive locations is what the host assigns and what inference would find, and a trial does not notice it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_lab.data import prepare
from salt_lab.evaluate.probe_data import PROBE, arrays, load_probe
from salt_lab.record.store import Store
from salt_lab.spec.parts import SALT_HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.testing.host_models import batch, build, shrink, small
from salt_lab.train import probe as probe_module
from salt_lab.train.points import points_at
from salt_lab.train.probe import probe_checkpoint
from salt_lab.train.probe_hosts import NoProbe, Seen, check_host, look
from salt_lab.train.probe_images import Kept, joined, read_objects

TRUTH = [[[10.0, 6.0, 74.0, 54.0], [60.0, 30.0, 92.0, 60.0]], [[20.0, 8.0, 84.0, 60.0]]]


def eager(host: str, **salt: Any) -> Any:
    """An untrained model whose boxes, scores and points differ from place to place."""
    model = build(small(host, **salt)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.bbox_head.named_parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
            if name.startswith("salt.") and "out" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def ask(model: Any, truth: list[Any] = TRUTH, side: int = 0) -> tuple[Seen, Any, list[Any]]:
    """What is seen in noise, the noise, and its samples."""
    check_host(model)
    images, samples = batch(truth, side, side) if side else batch(truth)
    boxes, labels, ignored = ([getattr(s, part)[field] for s in samples] for part, field in (
        ("gt_instances", "bboxes"), ("gt_instances", "labels"), ("ignored_instances", "bboxes")))  # fmt: skip
    with torch.no_grad():
        return look(model, images, [s.metainfo for s in samples], boxes, labels, ignored), images, samples


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    from mmdet.structures.bbox import bbox_overlaps

    return bbox_overlaps(a, b, is_aligned=True)


@pytest.mark.parametrize("host", SALT_HOSTS)
class TestEveryHost:
    def test_positives_and_their_boxes_are_those_that_the_seam_teaches(self, host: str) -> None:
        model = eager(host, enabled=True)
        seen, images, samples = ask(model)
        head, kept = model.bbox_head, list[Any]()
        plain = head.positives
        head.positives = lambda *args: kept.append(plain(*args)) or kept[0]
        with torch.no_grad():
            features = model.extract_feat(images)
            head.training = True
            head.loss_by_feat(*head(features), [s.gt_instances for s in samples], [s.metainfo for s in samples])
        found, truth = kept[0], torch.cat([torch.tensor(boxes) for boxes in TRUTH])
        target_P4 = truth[seen.image_P * 2 + seen.object_P]
        assert len(seen.image_P) == len(found.target_P4) > 2
        assert torch.allclose(iou(seen.coarse_P4, target_P4), iou(found.coarse_P4, found.target_P4), atol=1e-4)
        uncut = ((seen.box_P4 > 0) & (seen.box_P4 < torch.tensor([95.0, 63.0, 95.0, 63.0]))).all(dim=1)  # by a head that clips itself
        uncut |= torch.tensor(hasattr(model.bbox_head, "bbox_coder") and host not in ("fovea", "reppoints"))
        assert uncut.any()
        assert torch.allclose(iou(seen.box_P4, target_P4)[uncut], iou(found.refined_P4, found.target_P4)[uncut], atol=1e-4)

    @pytest.mark.parametrize("salt", [True, False])
    def test_score_and_box_of_a_positive_are_among_what_inference_predicts(self, host: str, salt: bool) -> None:
        from mmengine.config import ConfigDict

        model = eager(host, enabled=salt)
        seen, images, samples = ask(model)
        cfg = ConfigDict(nms_pre=1_000_000, score_thr=-1.0, min_bbox_size=-1)
        with torch.no_grad():
            outputs = model.bbox_head(model.extract_feat(images))
            predicted = model.bbox_head.predict_by_feat(*outputs, batch_img_metas=[s.metainfo for s in samples], cfg=cfg, with_nms=False)
        far = torch.tensor([96.0, 64.0, 96.0, 64.0])
        rows = zip(seen.image_P, seen.object_P, seen.box_P4.clamp(min=0).minimum(far), seen.class_score_P * seen.quality_P, strict=True)
        for image, which, box, score in list(rows)[::3]:
            label = samples[image].gt_instances.labels[which]
            of_class = predicted[image][predicted[image].labels == label]
            apart = (of_class.bboxes - box).abs().amax(dim=1) + 100 * (of_class.scores - score).abs()
            assert apart.min() < 1e-2

    def test_points_are_those_that_infer_draws_at_the_same_locations(self, host: str) -> None:
        model, aligned = eager(host, enabled=True), list[Any]()
        hook = model.bbox_head.salt.register_forward_hook(lambda module, args, out: aligned.append(out))
        seen, _, _ = ask(model, TRUTH[:1])
        hook.remove()
        del aligned[5:]  # some heads are asked a second time, for what they say in training
        priors = [p[:, :2] if p.shape[1] == 2 else (p[:, :2] + p[:, 2:]) / 2 for p in model.bbox_head.prior_generator.grid_priors(
            [level.coarse_N4HW.shape[-2:] for level in aligned], device="cpu")]  # fmt: skip
        origins = []
        for level, centre in zip(seen.level_P.tolist(), seen.centre_P2, strict=True):
            row = int((priors[level] - centre).abs().sum(dim=1).argmin())
            origins.append((level, *divmod(row, aligned[level].coarse_N4HW.shape[-1])))
        with torch.no_grad():
            drawn = points_at(model.bbox_head, aligned, origins)
        assert torch.equal(drawn.coarse_N4, seen.coarse_P4)
        assert drawn.r_points is not None and torch.allclose(drawn.r_points, seen.reg_points_PK2, atol=1e-4)
        assert drawn.c_points is not None and torch.allclose(drawn.c_points, seen.cls_points_PK2, atol=1e-3, rtol=1e-5)

    def test_both_arms_have_the_same_positives(self, host: str) -> None:
        if host == "reppoints":
            pytest.skip("RepPoints assigns by its own first boxes, which differ between the arms")
        on, off = ask(eager(host, enabled=True))[0], ask(eager(host))[0]
        for name in ("image_P", "object_P", "level_P", "centre_P2", "stride_P"):
            assert torch.equal(getattr(on, name), getattr(off, name)), name
        assert off.coarse_P4.isnan().all() and off.reg_points_PK2.shape[1] == off.cls_points_PK2.shape[1] == 0

    def test_asking_leaves_the_head_as_it_was(self, host: str) -> None:
        model = eager(host, enabled=True)
        before, names = {k: v.clone() for k, v in model.state_dict().items()}, set(vars(model.bbox_head))
        first, second = ask(model)[0], ask(model)[0]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if not a.is_floating_point())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert not model.bbox_head.training and set(vars(model.bbox_head)) == names


def test_a_smaller_image_in_a_padded_batch_is_seen_as_if_it_were_alone() -> None:
    model = eager("atss", enabled=True)
    truth = [[[10.0, 6.0, 74.0, 54.0]], [[8.0, 4.0, 56.0, 44.0]]]
    images, samples = batch(truth)
    shrink(images, samples[1], at=1, height=48, width=64)
    boxes, none = [s.gt_instances.bboxes for s in samples], torch.zeros(0, 4)
    labels, metas = [s.gt_instances.labels for s in samples], [s.metainfo for s in samples]
    with torch.no_grad():
        together = look(model, images, metas, boxes, labels, [none, none])
        alone = look(model, images[1:], metas[1:], boxes[1:], labels[1:], [none])
    second = together.image_P == 1
    for name in Seen._fields[1:]:
        assert torch.allclose(getattr(together, name)[second], getattr(alone, name), atol=1e-2, rtol=1e-3), name


def test_on_levels_without_the_operator_there_is_no_coarse_box_and_no_point() -> None:
    large, little = [[10.0, 6.0, 240.0, 200.0]], [[100.0, 60.0, 130.0, 90.0]]
    seen = ask(eager("atss", enabled=True, levels=(4, 5, 6)), [large, little], 256)[0]
    acting = seen.level_P > 0
    assert acting.any() and (~acting).any()
    for values in (seen.coarse_P4, seen.reg_points_PK2.flatten(1), seen.cls_points_PK2.flatten(1)):
        assert torch.equal(values.isfinite().all(dim=1), acting)


@pytest.mark.parametrize(("salt", "points"), [({"cls_at": "r_points"}, (9, 0)), ({"cls_at": "cell", "reg_at": "cell"}, (0, 0))])
def test_points_that_the_operator_does_not_have_are_none(salt: dict[str, str], points: tuple[int, int]) -> None:
    seen = ask(eager("fcos", enabled=True, **salt))[0]
    assert (seen.reg_points_PK2.shape[1], seen.cls_points_PK2.shape[1]) == points and seen.coarse_P4.isfinite().all()


@pytest.mark.parametrize("host", ["dyhead", "retinanet_9_anchors"])
def test_comparison_hosts_that_assign_by_place_are_probed_too(host: str) -> None:
    seen = ask(eager(host))[0]
    assert len(seen.image_P) > 0 and ((seen.class_score_P > 0) & (seen.class_score_P < 1)).all()


@pytest.mark.parametrize("host", ["tood", "ddod", "paa", "autoassign"])
def test_hosts_that_assign_by_what_they_predict_say_so(host: str) -> None:
    with pytest.raises(NoProbe, match="in a way of its own"):
        check_host(eager(host))


def test_what_has_not_one_dense_head_says_what_can_be_asked() -> None:
    with pytest.raises(NoProbe, match="detectors with one dense head"):
        check_host(torch.nn.Linear(2, 2))


class TestObjects:
    """Which annotations count, and which of them are kept."""

    def test_those_are_left_out_that_mmdet_leaves_out(self, tmp_path: Path) -> None:
        good = {"image_id": 1, "category_id": 5, "bbox": [10, 10, 20, 10], "area": 150, "iscrowd": 0}
        changes: list[dict[str, Any]] = [
            {}, {"iscrowd": 1}, {"area": 0}, {"bbox": [10, 10, 0.5, 10]}, {"bbox": [200, 10, 20, 10]}, {"ignore": 1}, {"category_id": 6},
            {"mark": [12.0, 14.0]},
        ]  # fmt: skip
        rows = [good | change | {"id": 100 + number} for number, change in enumerate(changes)]
        images = [{"id": 1, "width": 100, "height": 80}, {"id": 2, "width": 100, "height": 80}]
        (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": rows}))
        found = read_objects(tmp_path / "val.json", {5: 0})
        assert list(found) == [1] and found[1].columns["object_P"].tolist() == [100, 107]
        assert found[1].boxes_G4[0].tolist() == [10, 10, 30, 20] and len(found[1].crowds_C4) == 1
        assert np.isnan(found[1].columns["mark_P2"][0]).all() and found[1].columns["mark_P2"][1].tolist() == [12, 14]

    @staticmethod
    def columns(objects: range, each: int = 3) -> dict[str, np.ndarray]:
        ids = np.repeat(np.array(objects), each)
        zeros = {name: np.zeros((len(ids), *(4 if size < 0 else size for size in row))) for name, row in arrays().items()}
        turns = np.random.default_rng(5).permutation(1000)
        return zeros | {"object_P": ids, "image_P": ids // 10, "turn": turns[ids]}

    def test_where_there_are_too_many_whole_objects_are_kept(self) -> None:
        kept = Kept(limit=100)
        kept.add(self.columns(range(1000)))
        found = joined([kept])
        objects, counts = np.unique(found.object_P, return_counts=True)
        assert (counts == 3).all() and len(objects) == 33 and found.total == 3000
        assert 300 < objects.mean() < 700 and objects.min() < 150 and objects.max() > 850, "drawn from all over the data set"
        assert (np.diff(found.image_P) >= 0).all()

    def test_the_same_objects_are_kept_however_many_workers_share_the_images(self) -> None:
        workers = [Kept(limit=100), Kept(limit=100)]
        for first in range(0, 1000, 10):
            workers[first // 10 % 2].add(self.columns(range(first, first + 10)))
        alone = Kept(limit=100)
        alone.add(self.columns(range(1000)))
        together, one = joined(workers), joined([alone])
        assert np.array_equal(together.object_P, one.object_P) and together.total == one.total == 3000

    def test_a_workers_reason_stands_for_all(self) -> None:
        assert joined([Kept(), "not measured: no memory"]).note == "not measured: no memory"


def tiny(**changes: Any) -> Trial:
    schedule = {"epochs": 1, "batch": 8, "image_size": [64, 64], "optimizer": "adamw", "lr": 1e-3, "warmup_iters": 2, "ema": 0.1}
    spec = {
        "host": "atss", "salt": True, "backbone": {"name": "resnet18", "base_channels": 8}, "channels": 64, "head_convs": 1,
        "data": {"train_images": 24, "val_images": 8, "image_size": 64, "classes": 2}, "schedule": schedule,
    }  # fmt: skip
    return Trial.model_validate(spec | changes)


def generators() -> list[Any]:
    import random

    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002


def fail(*args: Any) -> None:
    raise RuntimeError("no such thing\nand more")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Store, Any, Any]]:
    """Store, record, and the process's state after the probe: with one that works, and with one that fails before it has looked at anything."""
    from salt_lab.train import session
    from salt_lab.train.trial import run_trial

    found = {}
    for name in ("with", "without"):
        after: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            real = session._probe
            if name == "without":
                patch.setattr(probe_module, "read_objects", fail)

            def probe(runner: Any, folder: Path, real: Any = real, after: list[Any] = after) -> None:
                real(runner, folder)
                model = runner.model
                state = {key: value.clone() for key, value in model.state_dict().items()}
                after.append((generators(), [m.training for m in model.modules()], state))

            patch.setattr(session, "_probe", probe)
            store = Store(tmp_path_factory.mktemp(name))
            record = run_trial(tiny(), store, study="s", launch_id="l", threads=1)
        found[name] = (store, record, after[0])
    return found


@pytest.mark.integration
class TestInATrial:
    """One trial with a running mean, trained with the probe and without."""

    def test_the_trial_does_not_notice(self, trained: dict[str, tuple[Store, Any, Any]]) -> None:
        (store, record, after), (other_store, other, other_after) = trained["with"], trained["without"]
        assert record.state == "done" and record.metrics == other.metrics and record.epochs[1]["losses"] == other.epochs[1]["losses"]
        assert after[:2] == other_after[:2], "random generators and modes"
        assert all(torch.equal(value, other_after[2][key]) for key, value in after[2].items()), "weights and batch norm's statistics"
        one, two = (
            torch.load(s.trial_dir(r.trial_id) / "checkpoints" / "epoch_1.pth", weights_only=False)
            for s, r in ((store, record), (other_store, other))
        )
        for part in ("state_dict", "ema_state_dict"):
            assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())

    def test_it_keeps_what_is_asked_of_it(self, trained: dict[str, tuple[Store, Any, Any]]) -> None:
        store, record, _ = trained["with"]
        found = load_probe(store.trial_dir(record.trial_id) / PROBE)
        content = json.loads(prepare(tiny().data, store.data_dir).val_json.read_text())
        rows = {row["id"]: row for row in content["annotations"]}
        assert set(found.object_P) <= set(rows) and len(found) == found.total > 20 and found.note == ""
        for place in range(0, len(found), 7):
            row = rows[found.object_P[place]]
            x, y, w, h = row["bbox"]
            assert (found.image_P[place], found.category_P[place], found.area_P[place]) == (
                row["image_id"],
                row["category_id"],
                row["area"],
            )
            assert np.allclose(found.object_box_P4[place], [x, y, x + w, y + h]) and np.allclose(found.mark_P2[place], row["mark"])
            assert x <= found.cell_P2[place, 0] <= x + w and y <= found.cell_P2[place, 1] <= y + h, "ATSS learns inside the object"
        assert ((found.score_P > 0) & (found.score_P < found.class_score_P)).all(), "times the centerness"
        assert ((found.iou_P >= 0) & (found.iou_P <= 1)).all() and found.has_salt and found.reg_points_PK2.shape[1:] == (9, 2)

    def test_the_last_checkpoint_gives_the_same_probe(self, trained: dict[str, tuple[Store, Any, Any]]) -> None:
        """So it is the running mean that was probed, as it was evaluated."""
        store, record, _ = trained["with"]
        before = (store.trial_dir(record.trial_id) / PROBE).read_bytes()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        probe_checkpoint(tiny(), store, record.trial_id, "cpu")
        torch.set_num_threads(threads)
        assert (store.trial_dir(record.trial_id) / PROBE).read_bytes() == before

    def test_a_probe_that_fails_is_a_warning_and_the_trial_is_done(self, trained: dict[str, tuple[Store, Any, Any]]) -> None:
        store, record, _ = trained["without"]
        folder = store.trial_dir(record.trial_id)
        assert record.state == "done" and load_probe(folder / PROBE).note == "not measured: RuntimeError: no such thing"
        assert "no probe: not measured: RuntimeError: no such thing" in (folder / "train.log").read_text()

    @pytest.mark.slow
    def test_two_workers_share_the_images_and_leave_one_probe(self, tmp_path: Path) -> None:
        from salt_lab.train.trial import run_trial

        trial = tiny(host="fcos", seed=3)
        record = run_trial(trial, Store(tmp_path), study="s", launch_id="l", threads=1, workers=2)
        store = Store(tmp_path)
        found = load_probe(store.trial_dir(record.trial_id) / PROBE)
        alone = probe_checkpoint(trial, store, record.trial_id, "cpu")
        assert len(found) > 0 and np.array_equal(found.object_P, alone.object_P) and np.allclose(found.iou_P, alone.iou_P, atol=1e-4)
