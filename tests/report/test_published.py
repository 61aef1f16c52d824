"""Published numbers: each has its source, and only a trial that is the same model on the same data is shown beside one."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import yaml

from salt_lab.report.published import COCO_IMAGES, PublishedRow, beside, match, published, whole_coco
from salt_lab.report.results import load_results
from salt_lab.report.table import render, study_table
from salt_lab.spec.trial import CocoData, Trial

ONE_X = {"schedule": "1x", "backbone": {"name": "resnet50", "init": "host"}}
ON_COCO = """
    question: Does it help?
    base:
      backbone: {name: resnet50, init: host}
      data: {train: /nowhere/instances_train2017.json, val: /nowhere/instances_val2017.json, images: /nowhere/train2017}
      schedule: 1x
    axes: {host: [atss, gfl], salt.enabled: [false, true]}
    seeds: [0, 1, 2]
    compare: {baseline: {salt.enabled: false}}
"""


def trial(**fields) -> Trial:
    return Trial.model_validate({**ONE_X, **fields})


def test_every_number_names_its_source_and_is_a_percentage():
    numbers = published()
    assert len({row.id for row in numbers.rows}) == len(numbers.rows) > 50
    for row in numbers.rows:
        assert row.sources and set(row.sources) <= set(numbers.sources), row.id
        assert all(20 < value < 65 for value in (*row.metrics.values(), row.test_dev or 50)), row.id
    assert all(source["text"] and source["where"] for source in numbers.sources.values())
    assert all(set(one["sources"]) <= set(numbers.sources) for one in numbers.statements)


def test_what_is_said_to_stand_in_mmdets_metafiles_stands_there():
    """AP, memory and milliseconds, row by row; VFNet's box AP there is on test-dev (its R-50 1x coincides), so the 2x row names the README."""
    from salt_lab.compose.hosts import configs_folder

    checked = 0
    for row in published().rows:
        if "MF" not in row.sources or row.config is None:
            continue
        meta = yaml.safe_load((configs_folder() / Path(row.config).parent / "metafile.yml").read_text())
        entry = next(model for model in meta["Models"] if model["Config"] == f"configs/{row.config}")
        boxes = [result["Metrics"]["box AP"] for result in entry["Results"] if result["Task"] == "Object Detection"]
        assert boxes == [row.metrics["AP"]], row.id
        said = entry["Metadata"]
        assert row.memory_gb in (None, said.get("Training Memory (GB)")), row.id
        times = [one["value"] for one in said.get("inference time (ms/im)", []) if one["mode"] == "FP16" or row.id != "retinanet-amp"]
        assert row.inference_ms is None or row.inference_ms in times, row.id
        checked += 1
    assert checked >= 25


def test_the_page_that_the_numbers_come_from_says_the_same(shared):
    page = (shared / "design" / "published_numbers.md").read_text()
    only_in_metafile = {"fovea"}
    missing = [
        row.id for row in published().rows for value in row.metrics.values() if f"{value:g}" not in page and row.id not in only_in_metafile
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("fields", "ap"),
    [
        ({"host": "atss"}, 39.4),
        ({"host": "fcos"}, 38.7),
        ({"host": "fcos_plain", "schedule": {"clip_grad": 35.0}}, 36.6),
        ({"host": "gfl", "quality": True}, None),
        ({"host": "gflv2"}, 41.0),
        ({"host": "retinanet_9_anchors"}, 36.5),
        ({"host": "vfnet"}, 41.6),
        ({"host": "salt_net", "salt": {"enabled": True, "sdr_weight": 0.0}}, 42.5),
        ({"host": "mmdet::atss/atss_r50_fpn_1x_coco.py", "backbone": {"name": "host", "init": "host"}}, 39.4),
    ],
)
def test_a_trial_of_the_published_recipe_has_its_number(fields, ap):
    found = match(trial(**fields))
    assert (found.metrics["AP"] if isinstance(found, PublishedRow) else None) == ap


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"host": "atss", "salt": True}, "nothing published of SALT on atss"),
        ({"host": "retinanet"}, "nothing published of retinanet"),
        ({"host": "atss", "schedule": {"epochs": 4}}, "schedule.epochs 12, here 4"),
        ({"host": "atss", "backbone": {"name": "resnet50"}}, "backbone.init host, here none"),
        ({"host": "atss", "channels": 64}, "channels 256, here 64"),
        ({"host": "fcos_plain"}, "schedule.clip_grad 35.0, here none"),
        ({"host": "salt_net", "salt": {"enabled": True, "sdr_weight": 1.0}}, "salt.sdr_weight 0.0, here 1.0"),
    ],
)
def test_anything_else_has_none_and_is_told_what_differs(fields, why):
    found = match(trial(**fields))
    assert isinstance(found, str) and why in found


def test_how_often_and_with_which_seed_is_no_difference():
    assert match(trial(host="atss", seed=7, schedule={"eval_every": 12})).id == "atss"


def coco(folder: Path, train: int, val: int) -> CocoData:
    for (name, _), number in zip(COCO_IMAGES.items(), (train, val), strict=True):
        (folder / name).write_text(json.dumps({"images": [{"file_name": f"{index}.jpg"} for index in range(number)]}))
    names = list(COCO_IMAGES)
    return CocoData(train=str(folder / names[0]), val=str(folder / names[1]), images=str(folder))


def test_a_part_of_coco_under_cocos_names_is_not_coco(tmp_path):
    found = whole_coco(coco(tmp_path, train=80, val=20))
    assert not found.whole and "instances_val2017.json with 20 images of 5,000" in found.why


def test_files_with_as_many_images_as_coco_are_coco(tmp_path, monkeypatch):
    assert list(COCO_IMAGES.values()) == [118_287, 5_000]
    monkeypatch.setitem(COCO_IMAGES, "instances_train2017.json", 300)  # 118,287 names take two seconds to write
    assert whole_coco(coco(tmp_path, 300, 5_000)) == (True, True, "")
    assert not whole_coco(coco(tmp_path, 299, 5_000)).whole


def test_where_the_files_are_elsewhere_their_names_decide_and_that_is_said(make_study, store):
    found = beside(load_results(make_study(ON_COCO, "on_coco"), store))
    assert sorted(row.id for row in found.rows.values()) == ["atss", "gfl"]
    assert any("so their images were not counted" in note for note in found.notes)


def test_published_numbers_stand_beside_ours_with_their_source_in_every_format(make_study, make_bench):
    bench = make_bench(make_study(textwrap.dedent(ON_COCO), "on_coco"))
    results = load_results(bench.study, bench.store)
    found = beside(results)
    texts = {form: render(study_table(results), form, published=found) for form in ("md", "latex", "html", "csv")}
    assert "39.4 [MF, R2.6]" in texts["md"] and "[MF] metafile.yml of mmdet 3.3.0" in texts["md"]
    assert "39.4 [MF, R2.6]" in texts["latex"] and "<td>39.4 [MF, R2.6]</td>" in texts["html"]
    assert texts["csv"].splitlines()[0].count("published_AP") == 1 and '39.4,"MF, R2.6"' in texts["csv"]


def test_other_data_never_show_a_coco_number_as_comparable_and_say_so_once(full):
    results = load_results(full.study, full.store)
    text = render(study_table(results), published=beside(results))
    assert text.count("No published number is comparable") == 1 and "39.4" not in text


def test_all_published_rows_stand_below_marked_and_never_bold(full):
    results = load_results(full.study, full.store)
    text = render(study_table(results), published=beside(results, everything=True))
    line = next(line for line in text.splitlines() if "SALT-Net, R-50 1x" in line)
    assert "(published, COCO) [SALT-Net]" in line and "42.5" in line and "**" not in line
    assert "**34.2**" in text, "the best of ours stays the best of ours, though 51.1 stands below"
