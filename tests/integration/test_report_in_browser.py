"""The report of 50 trials in a real browser, headless Chromium: it renders without errors, sorts, opens, compares, prints, and fits a phone.

Chromium is driven through its own pipe (``--remote-debugging-pipe``, JSON messages that end with a zero byte), so nothing but Chromium is needed.
"""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import math
import os
import re
import select
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salt_lab.data import fingerprint, prepare
from salt_lab.evaluate.accumulate import numbers
from salt_lab.evaluate.ground_truth import load_truth
from salt_lab.evaluate.matching import match
from salt_lab.record import FolderRecorder, Store
from salt_lab.record.journal import read_json
from salt_lab.report.page import write_page
from salt_lab.spec.study import Study, load_study
from salt_lab.spec.trial import Trial, canonical, trial_id

CHROMIUM = (
    os.environ.get("SALT_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium, or set SALT_LAB_CHROMIUM)"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
PATIENCE_SECONDS = 60.0
STUDY = """
question: Does SALT help five hosts?
base:
  data: {train_images: 2, val_images: 24, image_size: 96}
  schedule: {epochs: 2}
axes:
  host: [fcos, atss, gfl, retinanet, gflv2]
  salt: [false, true]
seeds: [0, 1, 2, 3, 4]
compare:
  baseline: {salt: false}
"""
PHONE, DESKTOP = (390, 844), (1280, 900)


# --- 50 trials ---


def detections(truth: dict[str, Any], trial: Trial) -> list[dict[str, Any]]:
    """Most objects, somewhat beside their places, and some false alarms; another seed, other places."""
    generator = np.random.default_rng([trial.seed, trial.salt.enabled, len(trial.host)])
    rows = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "score": float(generator.uniform(0.2, 1))}
        | {"bbox": [float(v) for v in np.array(one["bbox"]) + generator.normal(0, 3.0 - trial.salt.enabled, 4)]}
        for one in truth["annotations"]
        if generator.random() > 0.1
    ]
    wrong = [{**row, "bbox": [10 * float(v) for v in generator.random(4)], "score": 0.3} for row in rows[::3]]
    return rows + wrong


def train(trial: Trial, study: Study, store: Store, truth: dict[str, Any]) -> None:
    """The record of a finished trial and its detections."""
    data, rows = fingerprint(trial.data), detections(truth, trial)
    metrics = {name: None if math.isnan(v) else v for name, v in numbers(match(load_truth(truth), rows))._asdict().items()}
    recorder = FolderRecorder(store, trial_id(trial, data))
    machine = {"host_kind": "linux-x86_64", "cpu": "Test CPU", "cores": 2, "gpu": None, "memory_gb": 8.0}
    provenance = {"git_commit": "1a2b3c4d" * 5, "code_version": "c0de00000001", "packages": {"torch": "2.13.0"}, "machine": machine}
    recorder.start(trial=canonical(trial), study=study.name, launch_id="l", data_fingerprint=data, provenance=provenance)
    recorder.built(effective={}, parameters=1_000_000 + 9 * trial.salt.enabled, gflops=2.5 + trial.salt.enabled, input_size=(96, 96))
    for epoch in (1, 2):
        recorder.eval(epoch, {**metrics, "AP": (metrics["AP"] or 0.0) * epoch / 2})
    recorder.done(metrics=metrics, epochs=2, inference={"inference_ms": 5.0}, train_seconds=90.0, eval_seconds=3.0, peak_memory_mb=800.0)
    with gzip.open(store.trial_dir(recorder.trial_id) / "detections.json.gz", "wt") as file:
        json.dump(rows, file)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 50 trials, five hosts times two arms times five seeds."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "hosts.yaml").write_text(textwrap.dedent(STUDY))
    study, store = load_study(folder / "hosts.yaml"), Store(folder / "runs")
    truth = read_json(prepare(study.cells[0].trial.data, store.data_dir).val_json)
    trials = study.trials()
    assert len(trials) == 50
    for trial in trials:
        train(trial, study, store, truth)
    return write_page(study, store, folder / "report.html", resamples=100)


# --- the browser ---


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, profile: Path) -> None:
        ours, self._write = os.pipe()
        self._read, theirs = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours, theirs)]  # so that 3 and 4 are free in the child

        def as_three_and_four() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, preexec_fn=as_three_and_four, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for fd in (ours, theirs, *high):
            os.close(fd)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its answer."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps({"id": self._number, "method": method, "params": parameters, **session}).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self.events.append(message)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], max(0, end - time.monotonic()))[0], "Chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium is gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, page: Path, size: tuple[int, int] = DESKTOP) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, as a person's finger would."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text="\r" if key == "Enter" else "")

    def complaints(self) -> list[dict[str, Any]]:
        """Whatever the console has: exceptions, violations of the page's policy, messages."""
        self.ask("1")  # what was on its way has arrived
        return [
            event
            for event in self.events
            if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself and embedded data left out."""
        found = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [address for address in found[1:] if not address.startswith("data:")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    profile = Path(tempfile.mkdtemp(prefix="salt-lab-chromium-"))
    found = Browser(profile)
    yield found
    found.process.terminate()
    found.process.wait(PATIENCE_SECONDS)
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def desktop(browser: Browser, report: Path) -> Browser:
    browser.open(report)
    return browser


def column(browser: Browser, number: int, table: str = "#table table") -> list[str]:
    """Texts of a column of a table's first body, from above."""
    return list(browser.ask(f"[...document.querySelector('{table}').tBodies[0].rows].map(row => row.cells[{number}].innerText)"))


# --- what is asked of it ---


def test_fifty_trials_are_less_than_ten_megabytes(report: Path) -> None:
    assert 100_000 < report.stat().st_size < 10_000_000


def test_the_page_renders_whole_without_a_word_on_the_console_and_asks_for_nothing(desktop: Browser) -> None:
    broken = desktop.ask("[...document.images].filter(one => !one.complete || one.naturalWidth === 0).length")
    assert broken == 0 and desktop.ask("document.images.length") >= 4
    assert desktop.complaints() == [] and desktop.requests() == []


def test_every_picture_has_words_that_say_its_numbers(desktop: Browser) -> None:
    words = desktop.ask("[...document.images].map(one => one.alt)")
    assert all(re.search(r"\d", text) and len(text) > 40 for text in words)
    drawn = desktop.ask("[...document.querySelectorAll('svg[role=img]')].map(one => one.getAttribute('aria-label'))")
    assert len(drawn) > 20 and all(re.search(r"\d+ of \d+ objects found", text) for text in drawn)


def test_tables_sort_by_click_and_by_key_and_say_so(desktop: Browser) -> None:
    before = column(desktop, 2)
    desktop.ask("document.querySelectorAll('#table table thead button')[2].click()")
    falling = [float(text.split()[0]) for text in column(desktop, 2)]
    assert falling == sorted(falling, reverse=True) and column(desktop, 2) != before
    heads = "[...document.querySelectorAll('#table figure thead th')].map(one => one.getAttribute('aria-sort'))"
    assert desktop.ask(heads)[:4] == ["none", "none", "descending", "none"]
    desktop.ask("document.querySelectorAll('#table table thead button')[2].focus()")
    desktop.press("Enter", 13)
    assert [float(text.split()[0]) for text in column(desktop, 2)] == falling[::-1]
    assert desktop.ask(heads)[2] == "ascending"
    desktop.ask("document.querySelectorAll('#table table thead button')[0].click()")
    assert column(desktop, 0) == sorted(column(desktop, 0)), "words sort as words"


def test_what_has_no_number_goes_last_either_way(desktop: Browser) -> None:
    for _ in range(2):
        desktop.ask("document.querySelectorAll('#table table thead button')[3].click()")
        texts = column(desktop, 3)
        assert texts[5:] == ["–"] * 5 and "–" not in texts[:5], "baselines have no delta"


def test_a_picture_opens_large_and_closes_with_escape(desktop: Browser) -> None:
    assert desktop.ask("document.querySelector('dialog').open") is False
    desktop.ask("document.querySelector('.open').click()")
    assert desktop.ask("document.querySelector('dialog').open") is True
    assert desktop.ask("document.querySelectorAll('dialog svg[role=img]').length") == 2, "both arms beside each other"
    wide = "document.querySelector('{} svg[role=img]').getBoundingClientRect().width"
    assert desktop.ask(wide.format("dialog")) > 1.8 * desktop.ask(wide.format(".gallery"))
    desktop.press("Escape", 27)
    assert desktop.ask("document.querySelector('dialog').open") is False


def test_two_runs_show_what_differs_and_only_that(desktop: Browser) -> None:
    assert "SALT" in column(desktop, 1, "#differences") and "host" not in column(desktop, 1, "#differences")
    choose = "(() => {{ const one = document.querySelectorAll('.controls select')[{}]; one.value = {}; one.dispatchEvent(new Event('change')); }})()"
    desktop.ask(choose.format(0, 0))
    desktop.ask(choose.format(1, 1))
    names = desktop.ask("document.querySelectorAll('.controls select')[1].selectedOptions[0].text")
    assert names == "host=fcos salt=off seed 1"
    assert column(desktop, 1, "#differences") == ["AP", "seed"] and column(desktop, 3, "#differences")[1] == "1"
    desktop.ask(choose.format(1, 0))
    assert desktop.ask("!document.getElementById('alike').hidden && document.getElementById('differences').hidden")
    assert desktop.complaints() == []


def test_on_a_phone_the_page_does_not_scroll_sideways(browser: Browser, report: Path) -> None:
    browser.open(report, PHONE)
    browser.ask("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.ask("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]") == [390, 390, 390]
    boxes = browser.ask("[...document.querySelectorAll('.wide')].map(one => [one.scrollWidth > one.clientWidth, one.tabIndex])")
    assert any(scrolls for scrolls, _ in boxes) and all(index == 0 for _, index in boxes), "wide tables scroll by themselves, also by key"
    inside = "one.closest('.wide, .hidden, select, dialog') || one.getBoundingClientRect().right <= innerWidth + 1"
    assert browser.ask(f"[...document.querySelectorAll('body *')].filter(one => !({inside})).length") == 0
    assert browser.complaints() == []


def test_it_prints_with_the_folds_open_and_the_controls_left_out(desktop: Browser, tmp_path: Path) -> None:
    printed = base64.b64decode(desktop.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert printed.startswith(b"%PDF-") and len(printed) > 50_000
    if shutil.which("pdftotext") is None:
        pytest.skip("printed; no pdftotext (poppler-utils) to read it with")
    (tmp_path / "page.pdf").write_bytes(printed)
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], check=True, capture_output=True, text=True).stdout
    assert "Does SALT help five hosts?" in text and "What it cost" in text
    assert "Score against IoU, detections" in text and "torch" in text, "what is folded on the screen"
    assert "First run" not in text and "Close" not in text, "paper has no controls"


def test_without_scripts_everything_is_there_to_read(browser: Browser, report: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report)
        root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        tables = browser.call("DOM.querySelectorAll", nodeId=root, selector="#differences tbody tr")["nodeIds"]
        assert len(tables) > 3 and browser.complaints() == []
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
