"""How numbers and toggles are written in a table; the same words in Markdown and LaTeX."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from salt_lab.report.intervals import intervals_text

if TYPE_CHECKING:
    from salt_lab.report.evidence import Evidence
    from salt_lab.report.rows import Row, Spread, Table

NO_DELTA, UNFINISHED, UNDEFINED = "–", "…", "n/a"
#: Behind a number of those seeds only that early stopping let through.
SELECTED = "†"
#: A hyphen that is a minus: in front of a digit, at the start or behind a bracket, a blank or a comma.
MINUS = re.compile(r"(?:^|(?<=[\[ ,(]))-(?=\d)")


def header(key: str) -> str:
    """A label key as a column's title: ``salt.enabled`` is ``SALT``, others stay as the study writes them."""
    return "SALT" if key == "salt.enabled" else key


def label_text(value: Any) -> str:
    """A toggle's value as the study would write it: on/off, numbers, text; ``–`` where the cell has no such toggle."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return NO_DELTA
    if isinstance(value, float):
        return f"{value:.12g}"
    return raw_text(value)


def raw_text(value: Any) -> str:
    """A toggle's value for a machine: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def series_name(label: Mapping[str, Any], name: str) -> str:
    """How a figure names a cell: ``atss``, ``atss + SALT`` where host and SALT are all that differs, its ``name`` otherwise."""
    if not label or "host" not in label or not set(label) <= {"host", "salt.enabled"}:
        return name
    return f"{label['host']} + SALT" if label.get("salt.enabled") else str(label["host"])


def number(value: float, digits: int = 1) -> str:
    """A fixed number of decimals; ``n/a`` for NaN."""
    return UNDEFINED if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """One decimal with its sign, plus or minus; a value that rounds to nothing is ``0.0``."""
    text = f"{value:+.1f}"
    return text[1:] if float(text) == 0 else text


def metric_text(row: Row, name: str) -> str:
    """``26.4``, ``26.4 ± 0.3``, for AP also the count: ``26.4 ± 0.3 (3)``; ``… failed`` or ``26.4 … 2/3 seeds`` when unfinished. A mean over
    the seeds that early stopping let through has a dagger."""
    values = row.metrics[name]
    if row.done == 0:
        return f"{UNFINISHED} {row.state}" if name == "AP" else UNFINISHED
    text = number(values.mean) + _plus_minus(values) + (SELECTED if row.selected else "")
    if name != "AP":
        return text
    if row.done < row.asked:
        return f"{text} {UNFINISHED} {row.state}"
    return f"{text} ({row.done})" if row.asked > 1 else text


def delta_text(row: Row) -> str:
    """``+2.3``, ``-1.0 ± 0.5``, ``+2.3 [+1.8, +2.8]*`` with an interval; ``–`` for a baseline; ``…`` while no seed is finished in both arms;
    ``(n)`` when fewer seeds pair than the row has; a dagger where early stopping took seeds out of either arm."""
    if row.delta is None:
        return NO_DELTA
    if row.delta.n == 0:
        return (
            UNFINISHED if row.unpaired is None else signed(row.unpaired.delta) + _sureness(row) + (SELECTED if row.delta_selected else "")
        )
    count = f" ({row.delta.n})" if row.delta.n < row.done else ""
    return signed(row.delta.mean) + _sureness(row) + (SELECTED if row.delta_selected else "") + count


def _sureness(row: Row) -> str:
    """The interval and its mark where there is one, else the spread over seeds."""
    found = row.comparison
    if found is None or found.method == "none" or row.delta is None:
        return _plus_minus(row.delta) if row.delta else ""
    return f" [{signed(found.low)}, {signed(found.high)}]{found.mark}"


def cost_texts(row: Row) -> tuple[str, str, str, str]:
    """Parameters (M), GFLOPs, minutes, MB of one row."""
    if row.done == 0:
        return (UNFINISHED,) * 4
    memory = number(row.peak_memory_mb, 0)
    return number(row.parameters / 1e6, 2), number(row.gflops, 2), number(row.train_minutes), memory


def speed_texts(row: Row) -> tuple[str, str, str]:
    """Training images/s, milliseconds of one image in inference, input size of one row."""
    if row.done == 0:
        return (UNFINISHED,) * 3
    return number(row.train_images_per_second), number(row.inference_ms), row.input_size or UNDEFINED


#: What the cost columns mean, for the caption of a table that shows them all.
COST_MEANING = (
    "GFLOPs: multiply-adds of convolutions and matrix products for one image at the input size (height x width), point and deformable "
    "convolutions counted, bilinear reading not. Images/s: median over epochs, loading included. Inference: median milliseconds from a picture "
    "in memory to its boxes, one image at a time, at the input size; n/a where the record has none."
)


def caption(table: Table) -> str:
    """One sentence each: study, data, seeds, code, date, what the numbers and the intervals mean, what is bold."""
    facts = table.evidence
    when = f"{facts.last_record:%Y-%m-%d %H:%M} UTC" if facts.last_record else "none yet"
    question = f" {table.question.strip()}" if table.question else ""
    return (
        f"Study {table.study}.{question} Data: {', '.join(facts.data) or 'no record yet'}. Seeds: {', '.join(map(str, table.seeds))}. "
        f"Code: {_code(facts)}.{_other_code(facts)} Last record: {when}. {_meaning(table)}{_bold(table)}{stopped_text(table)}"
    )


def _bold(table: Table) -> str:
    return " Bold: best of the rows whose seeds are all done." if table.best("AP") else ""


def runs_list(table: Table) -> list[str]:
    """``cell: seed 0 RUN, seed 1 RUN`` for every row that has a finished trial."""
    return [f"{row.name}: {', '.join(row.runs)}" for row in table.rows if row.runs]


def stopped_text(table: Table) -> str:
    """How many trials early stopping ended, and what the dagger means; empty where it ended none. Begins with a blank."""
    if not table.stopped:
        return ""
    asked = sum(row.asked for row in table.rows)
    text = f" Early stopping ended {table.stopped} of {asked} trials before their last epoch; they are in no number."
    if any(row.selected or (row.delta_selected and row.delta and row.delta.n) for row in table.rows):
        text += f" {SELECTED}: over the seeds that were not stopped, which were chosen by their AP."
    return text


def _other_code(facts: Evidence) -> str:
    return f" {facts.other_code}" if facts.other_code else ""


def _code(facts: Evidence) -> str:
    sources = f" (sources {', '.join(facts.codes)})" if facts.codes else ""
    return f"{', '.join(facts.commits)}{sources}" if facts.commits else "no record yet"


def _meaning(table: Table) -> str:
    delta = f" Delta: AP points against the row's baseline, paired by seed.{intervals_text(table.intervals)}" if table.compared else ""
    if len(table.seeds) == 1:
        return f"AP in percent at the last epoch; one seed, so the spread over seeds is unknown.{delta}"
    cost = " Minutes are the seeds' mean, memory their largest."
    return f"AP in percent at the last epoch: mean ± sample standard deviation over seeds (number of seeds).{delta}{cost}"


def _plus_minus(values: Spread) -> str:
    return "" if math.isnan(values.sd) else f" ± {values.sd:.1f}"
