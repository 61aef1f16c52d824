"""The report as a page: what it says, that it says no more than is known, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from salt_lab.data import prepare
from salt_lab.errors import UserError
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.matching import match
from salt_lab.record.journal import read_json
from salt_lab.report.intervals import find_intervals
from salt_lab.report.page import page, write_page
from salt_lab.report.page_parts.answer import answer
from salt_lab.report.results import load_results
from salt_lab.report.rows import study_table

SPENT = {"train_seconds": 90.0, "eval_seconds": 1.0, "peak_memory_mb": 1.0}
WITH_IMAGES = """
    question: Does it help on six small pictures?
    base:
      data: {train_images: 2, val_images: 6, image_size: 48}
      schedule: {epochs: 1}
    axes:
      salt: [false, true]
    seeds: [0]
    compare:
      baseline: {salt: false}
"""
SIZES = """
    question: How many points?
    base:
      data: marks
      salt: true
      schedule: {epochs: 1}
    axes:
      salt.points: [9, 12, 16, 20, 25, 30, 36]
    seeds: [0, 1, 2]
    compare:
      baseline: {salt.points: 9}
"""


STUDY = """
    question: Does SALT help two_hosts by 100 %?
    base:
      data: {train_images: 2, val_images: 2, image_size: 48}
      schedule: {epochs: 2}
    axes:
      host: [atss, gfl]
      salt: [false, true]
    seeds: [0, 1, 2]
    compare:
      baseline: {salt: false}
"""


@pytest.fixture
def bench(make_bench, make_study):
    """On a few small pictures: measuring draws the data set where it is not there."""
    return make_bench(make_study(STUDY, "two_hosts"))


class Page(HTMLParser):
    """Tags with their attributes, and all text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self._open = "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self._open = tag

    def handle_data(self, data):
        self.text += "" if self._open in ("script", "style") else data

    def handle_endtag(self, tag):
        self._open = ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def html_of(bench, **options) -> str:
    return page(load_results(bench.study, bench.store), bench.store, **{"resamples": 0, **options})


def sentence(bench) -> str:
    results = load_results(bench.study, bench.store)
    return answer(study_table(results, find_intervals(results, None))).sentence


def fill(bench, gains: dict[str, tuple[float, ...]]) -> None:
    """Three seeds of each host, the variant's AP above the baseline's by so much."""
    for host, by_seed in gains.items():
        for seed, gain in enumerate(by_seed):
            bench.done(bench.trial(seed, host=host, salt=False), 30.0 + 0.1 * seed)
            bench.done(bench.trial(seed, host=host, salt=True), 30.0 + 0.1 * seed + gain)


# --- the answer ---


def test_a_gain_on_every_host_is_said_with_its_intervals_and_seeds(bench):
    fill(bench, {"atss": (2.0, 2.1, 1.9), "gfl": (1.0, 1.1, 0.9)})
    said = sentence(bench)
    assert said == "SALT gains AP: +2.0 [+1.8, +2.2] on atss and +1.0 [+0.8, +1.2] on gfl (95 % intervals, 3 seeds each)."


def test_a_loss_is_called_a_loss(bench):
    fill(bench, {"atss": (-2.0, -2.1, -1.9), "gfl": (-1.0, -1.1, -0.9)})
    assert sentence(bench).startswith("SALT loses AP: −2.0 [−2.2, −1.8] on atss")


def test_hosts_that_do_not_agree_make_a_mixed_answer(bench):
    fill(bench, {"atss": (2.0, 2.1, 1.9), "gfl": (-1.0, -1.1, -0.9)})
    assert re.match(r"Mixed: SALT gains \+2.0 \[.*\] on atss and loses −1.0 \[.*\] on gfl", sentence(bench))


def test_a_difference_within_the_noise_is_no_gain_however_large_it_is(bench):
    fill(bench, {"atss": (9.0, -3.0, 6.0), "gfl": (1.0, -1.0, 0.0)})
    assert sentence(bench).startswith("No difference can be shown: SALT changes AP by +4.0 [")


def test_one_seed_answers_nothing_about_other_seeds(bench):
    for salt in (False, True):
        bench.done(bench.trial(0, host="atss", salt=salt), 30.0 + 20 * salt)
    assert sentence(bench) == "It cannot be said from one seed whether SALT helps. In this one AP changes by +20.0 on atss."


def test_what_has_no_number_yet_is_named_beside_the_answer(bench):
    fill(bench, {"atss": (2.0, 2.1, 1.9)})
    results = load_results(bench.study, bench.store)
    assert answer(study_table(results, find_intervals(results, None))).more == ("No number yet: gfl.",)


def test_many_comparisons_are_counted(make_bench, make_study):
    bench = make_bench(make_study(SIZES, "sizes"))
    for points, gain in ((9, 0.0), (12, 2.0), (16, 3.0), (20, -2.0), (25, 0.0), (30, 2.5), (36, 2.2)):
        for seed in range(3):
            bench.done(bench.trial(seed, points=points), 30.0 + gain + 0.01 * seed * (1 + points % 5) * bool(gain))
    said = sentence(bench)
    assert said.startswith("Of 6 comparisons the variant gains in 4 (most: +3.0 [") and "points=16" in said
    assert "loses in 1 (most: −2.0 [" in said and "within the noise in 1" in said and "3 seeds" in said


def test_seeds_that_early_stopping_chose_give_no_gain(bench):
    fill(bench, {"atss": (2.0, 2.1)})
    bench.stopped(bench.trial(2, host="atss", salt=True), 10.0)
    said = sentence(bench)
    assert said.startswith("No difference can be shown") and "†" in said


def test_a_study_that_compares_nothing_says_so(make_bench, make_study):
    bench = make_bench(make_study(SIZES.split("    compare:")[0], "alone"))
    bench.done(bench.trial(0, points=16), 31.0)
    assert sentence(bench) == "The study compares no cell with another. The highest AP is 31.0 (points=16, 1 seed)."


# --- the page ---


@pytest.fixture
def quickly(monkeypatch):
    """Figures take a second or two a page; only tests that are about them draw them."""
    from salt_lab.report.page_parts.figures import Figures

    monkeypatch.setattr("salt_lab.report.page_parts.figures.figures", lambda *_: Figures())


@pytest.fixture(scope="module")
def checked():
    """Asks of a page what every page must have."""

    def check(html: str) -> Page:
        found = Page(html)
        assert all(one["src"].startswith("data:") and one["alt"].strip() for one in found.all("img"))
        assert all(one.get("aria-label") or one.get("aria-hidden") for one in found.all("svg"))
        assert all(one["href"].startswith(("#", "data:")) for tag in ("a", "link", "use", "image") for one in found.all(tag))
        assert not any("src" in one for one in found.all("script")) and "style" not in {key for _, one in found.tags for key in one}
        policy = next(one["content"] for one in found.all("meta") if "content" in one and "default-src" in one["content"])
        assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
        for kind in ("script", "style"):
            content = re.search(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL).group(1)
            assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
        ids = [one["id"] for _, one in found.tags if "id" in one]
        assert len(ids) == len(set(ids)) and all(one["href"][1:] in ids for one in found.all("a"))
        return found

    return check


def test_a_finished_study_has_question_answer_table_costs_and_evidence(full, checked):
    found = checked(html_of(full))
    assert "Does SALT help two_hosts by 100 %?" in found.text and "SALT gains" in found.text
    assert "+3.1 [+1.5, +4.6]*" in found.text, "the table's delta with its interval and mark"
    assert "The 12 finished trials trained for 18.0 minutes in all" in found.text
    assert "1a2b3c4 + uncommitted changes" in found.text and "c0de00000001" in found.text and "Test CPU" in found.text
    for trial in load_results(full.study, full.store).frame["trial_id"]:
        assert trial in found.text
    alternatives = " ".join(one["alt"] for one in found.all("img"))
    assert "+3.1" in alternatives and "AP 20.5 after epoch 1" not in alternatives and "after epoch 1" in alternatives


def test_a_study_over_numbers_shows_its_curve_on_the_page(make_bench, make_study, checked):
    bench = make_bench(make_study(SIZES, "sizes"))
    for trial in bench.study.trials():
        bench.done(trial, 30.0 + 0.1 * trial.salt.points + 0.01 * trial.seed)
    curve = next(one for one in checked(html_of(bench, pictures=False)).all("img") if "AP 30.9 at 9, 31.2 at 12" in one["alt"])
    assert "at 36: +2.7" in curve["alt"] and curve["src"].startswith("data:image/svg+xml")


def test_what_is_not_finished_is_listed_with_its_reason(bench, checked, quickly):
    fill(bench, {"atss": (2.0,)})
    bench.failed(bench.trial(1, host="atss", salt=True), reason="RuntimeError: out of memory while reading /home/me/data/x.jpg")
    bench.stopped(bench.trial(2, host="atss", salt=True), 10.0)
    found = checked(html_of(bench))
    assert "out of memory while reading x.jpg" in found.text, "the reason, without folders"
    assert "early stopping at epoch 1: AP 10.0, needed 30.0" in found.text
    assert re.search(r"12 trials: 2 finished, 1 stopped early, 1 failed, 8 not started", found.text)


def test_a_study_that_was_never_run_has_a_page_that_says_so(bench, checked):
    found = checked(html_of(bench))
    assert "Nothing can be said yet: no trial of this study is finished." in found.text
    assert "There are no two runs to compare yet." in found.text and "No finished trial yet." in found.text


def test_text_from_a_study_or_a_record_is_text_on_the_page(make_bench, make_study, checked, quickly):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    bench = make_bench(
        make_study(
            f"question: '{evil}'\n" + "base: {data: {train_images: 2, val_images: 2, image_size: 48}}\naxes: {salt: [false, true]}\n",
            "evil",
        )
    )
    bench.done(bench.trial(0, salt=False), 30.0, git_commit=None, packages={evil: evil}, python=evil)
    bench.failed(bench.trial(0, salt=True), reason=evil)
    html = html_of(bench)
    assert len(checked(html).all("script")) == 2 and "alert(1)</script>" not in html and "<img src=x" not in html


def test_the_page_names_no_folder_of_this_machine(full, tmp_path, quickly):
    html = html_of(full, pictures=True)
    assert str(tmp_path) not in html and str(full.store.root) not in html


def test_the_same_records_give_the_same_page_but_for_the_time(full):
    pages = [re.sub(r"Written [-\d: ]+ UTC", "", html_of(full)) for _ in range(2)]
    assert pages[0] == pages[1]


# --- the gallery ---


@pytest.fixture
def seen(make_bench, make_study):
    """Both arms done on six small pictures: the variant's boxes are beside the objects, the baseline's are right."""
    bench = make_bench(make_study(WITH_IMAGES, "six"))
    truth = read_json(prepare(bench.trial(0, salt=False).data, bench.store.data_dir).val_json)
    for salt, beside in ((False, 0.5), (True, 5.0)):
        generator = np.random.default_rng(salt)
        rows = [
            {"image_id": one["image_id"], "category_id": one["category_id"], "score": round(float(generator.random()), 3)}
            | {"bbox": [float(v) for v in np.array(one["bbox"]) + generator.normal(0, beside, 4)]}
            for one in truth["annotations"]
        ]
        found = numbers(match(truth, rows))._asdict()
        recorder = bench.start(bench.trial(0, salt=salt))
        recorder.done(metrics={key: None if math.isnan(v) else v for key, v in found.items()}, epochs=1, **SPENT)
        (bench.store.trial_dir(recorder.trial_id) / "detections.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    return bench


def test_the_gallery_shows_both_arms_and_each_photo_once(seen, checked, quickly):
    html = html_of(seen)
    found = checked(html)
    panels = [one["aria-label"] for one in found.all("svg") if one.get("role") == "img"]
    assert len(panels) == 12 and sum("salt=on" in text for text in panels) == 6
    assert all(re.search(r"Image \d+, .*: \d+ of \d+ objects found, \d+ missed, \d+ false alarms\.", text) for text in panels)
    assert len(found.all("image")) == 6, "a photo is embedded once, not once a run"
    shown = {one["href"] for one in found.all("use")}
    assert shown == {f"#{one['id']}" for one in found.all("image")}
    disagreement = [float(value) for value in re.findall(r"Disagreement (\d+\.\d)", html)]
    assert disagreement == sorted(disagreement, reverse=True) and disagreement[0] > 0
    assert html.count(": worse with") == 6


def test_without_the_gallery_nothing_of_the_photos_is_in_the_page(seen, checked, quickly):
    found = checked(html_of(seen, pictures=False))
    assert found.all("image") == [] and "Gallery" not in found.text


def test_a_full_page_draws_the_boxes_without_the_photo_and_says_so(seen, monkeypatch, checked, quickly):
    monkeypatch.setattr("salt_lab.report.page_parts.gallery.PHOTO_BYTES", 20_000)
    found = checked(html_of(seen))
    kept = len(found.all("image"))
    assert 0 < kept < 6 and f"{6 - kept} photos are left out" in found.text
    assert len([one for one in found.all("svg") if one.get("role") == "img"]) == 12


def test_where_detections_are_not_here_the_gallery_says_why(full, checked, quickly):
    found = checked(html_of(full))
    assert "No pictures of:" in found.text and "no detections here" in found.text


# --- the file ---


def test_the_file_is_checked_before_anything_is_computed(bench, tmp_path):
    for output, said in (
        (tmp_path, "is a folder. Name a file in it"),
        (tmp_path / "no" / "page.html", "there is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            write_page(bench.study, bench.store, output, tell=lambda line: pytest.fail(line))


def test_an_earlier_report_is_replaced_and_each_long_part_is_told(full, tmp_path, quickly):
    (tmp_path / "page.html").write_text("earlier")
    told: list[str] = []
    output = write_page(full.study, full.store, tmp_path / "page.html", resamples=0, tell=told.append)
    assert output.read_text().startswith("<!doctype html>") and sorted(path.name for path in tmp_path.glob("*page*")) == ["page.html"]
    assert [line.split()[0] for line in told][:4] == ["reading", "intervals:", "measures", "pictures"]
