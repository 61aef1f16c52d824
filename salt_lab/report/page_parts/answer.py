"""The answer to a study's question in one sentence: what the intervals allow to be said, and no more.

A gain or a loss is one whose p, corrected for all comparisons of the study, is under 0.05; everything else is within the noise.
Runs of one seed answer nothing about other seeds, and the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from salt_lab.report.words import SELECTED, label_text, number, series_name, signed
from salt_lab.spec.naming import names

if TYPE_CHECKING:
    from salt_lab.report.compare import Comparison
    from salt_lab.report.rows import Row, Table

GAIN, LOSS, OPEN, ONE_SEED, NOTHING = "gain", "loss", "open", "one seed", "nothing"
_MIXED = {GAIN: "gains", LOSS: "loses", OPEN: "is within the noise with", ONE_SEED: "has one seed only with"}
#: With more comparisons than this the sentence counts them instead of naming each.
FEW = 4


@dataclass(frozen=True)
class Answer:
    """``sentence`` is the answer. ``verdict``: gain | loss | open | one seed | nothing | mixed. ``more``: what a reader must know beside it."""

    sentence: str
    verdict: str
    more: tuple[str, ...] = ()


class Pair(NamedTuple):
    """A cell and its baseline. ``what`` is what the cell has that the baseline has not ("SALT"), ``where`` what both are ("atss", may be "")."""

    row: Row
    baseline: Row
    what: str
    where: str

    @property
    def name(self) -> str:
        """The cell as a reader calls it: ``atss + SALT``."""
        return series_name(self.row.label, self.row.name)

    @property
    def against(self) -> str:
        """The baseline, likewise."""
        return series_name(self.baseline.label, self.baseline.name)

    @property
    def found(self) -> Comparison | None:
        """The comparison; None where nothing can be subtracted, or nobody computed it."""
        one = self.row.comparison
        return None if one is None or math.isnan(one.delta) else one

    @property
    def verdict(self) -> str:
        """What may be said of this pair."""
        one = self.found
        if one is None:
            return NOTHING
        if one.method in ("images", "none"):
            return ONE_SEED
        return OPEN if not one.mark else GAIN if one.delta > 0 else LOSS


def pairs_of(table: Table) -> list[Pair]:
    """Every cell that has a baseline in the study, in its order."""
    rows = {row.key: row for row in table.rows}
    return [_pair(row, rows[row.baseline]) for row in table.rows if row.baseline in rows]


def _pair(row: Row, baseline: Row) -> Pair:
    keys = dict.fromkeys([*row.label, *baseline.label])
    different = [key for key in keys if row.label.get(key) != baseline.label.get(key)]
    common = {key: row.label[key] for key in row.label if key not in different}
    where = label_text(common["host"]) if set(common) == {"host"} else names([common])[0]
    if row.title or not different:
        return Pair(row, baseline, row.name, "")
    if row.label.get("salt.enabled") is True and "salt.enabled" in different:
        return Pair(row, baseline, "SALT" if len(different) == 1 else row.name, where if len(different) == 1 else "")
    return Pair(row, baseline, names([{key: row.label[key] for key in different if key in row.label}])[0] or row.name, where)


def answer(table: Table) -> Answer:
    """The sentence for a computed table (with intervals, see :func:`salt_lab.report.rows.study_table`)."""
    if not any(row.done for row in table.rows):
        return Answer("Nothing can be said yet: no trial of this study is finished.", NOTHING)
    pairs = pairs_of(table)
    if not pairs:
        return _without_comparison(table)
    known = [pair for pair in pairs if pair.verdict != NOTHING]
    if not known:
        return Answer("Nothing can be said yet: no cell is finished together with its baseline.", NOTHING)
    subject = known[0].what if len({pair.what for pair in known}) == 1 else ""
    verdicts = {pair.verdict for pair in known}
    verdict = verdicts.pop() if len(verdicts) == 1 else "mixed"
    say = _counted if len(known) > FEW else _named
    return Answer(say(known, subject, verdict), verdict, _more(pairs, known))


def _without_comparison(table: Table) -> Answer:
    best = max((row for row in table.rows if row.metrics["AP"].n), key=lambda row: row.metrics["AP"].mean, default=None)
    if best is None:
        return Answer("Nothing can be said: AP is undefined in every finished trial.", NOTHING)
    sd = "" if math.isnan(best.metrics["AP"].sd) else f" ± {number(best.metrics['AP'].sd)}"
    text = f"The study compares no cell with another. The highest AP is {number(best.metrics['AP'].mean)}{sd} ({best.name}, {_seeds(best.done)})."
    return Answer(text, NOTHING)


def _named(pairs: Sequence[Pair], subject: str, verdict: str) -> str:
    who = subject or "The variant"
    listed = {kind: _join([_item(pair, subject) for pair in pairs if pair.verdict == kind]) for kind in (GAIN, LOSS, OPEN, ONE_SEED)}
    seeds, several = _seeds_of(pairs), "each" if len(pairs) > 1 else ""
    behind = f"95 % interval{'s' if len(pairs) > 1 else ''}, {' '.join(filter(None, [seeds, several]))}"
    if verdict == ONE_SEED:
        return _one_seed(pairs, who, listed[ONE_SEED])
    if verdict == OPEN:
        return f"No difference can be shown: {who} changes AP by {listed[OPEN]} ({behind})."
    if verdict in (GAIN, LOSS):
        return f"{who} {'gains' if verdict == GAIN else 'loses'} AP: {listed[verdict]} ({behind})."
    parts = [f"{words} {listed[kind]}" for kind, words in _MIXED.items() if listed[kind]]
    start = "Mixed" if listed[GAIN] or listed[LOSS] else "No difference can be shown"
    return f"{start}: {who} {_join(parts)} (AP points, {behind})."


def _one_seed(pairs: Sequence[Pair], who: str, listed: str) -> str:
    known = [pair for pair in pairs if pair.found and pair.found.method == "images"]
    knows = f" The 95 % {'interval knows' if len(known) == 1 else 'intervals know'} the images, not other seeds." if known else ""
    return f"{_unsaid(who)} In this one AP changes by {listed}.{knows}"


def _unsaid(who: str) -> str:
    return f"It cannot be said from one seed whether {who[0].lower() + who[1:] if who.startswith('The ') else who} helps."


def _item(pair: Pair, subject: str) -> str:
    one = pair.found
    assert one is not None
    where = pair.where if subject else " on ".join(filter(None, [pair.what, pair.where]))
    interval = "" if one.method == "none" else f" [{_true(one.low)}, {_true(one.high)}]"
    chosen = SELECTED if pair.row.delta_selected else ""
    return f"{_true(one.delta)}{chosen}{interval}" + (f" {'on' if subject and '=' not in where else 'with'} {where}" if where else "")


def _counted(pairs: Sequence[Pair], subject: str, verdict: str) -> str:
    who = subject or "the variant"
    if verdict == ONE_SEED:
        ends = [_extreme(pairs, subject, min), _extreme(pairs, subject, max)]
        return f"It cannot be said from one seed whether {who} helps. In this one the {len(pairs)} changes of AP lie between {_join(ends)}."
    by = {kind: [pair for pair in pairs if pair.verdict == kind] for kind in (GAIN, LOSS, OPEN, ONE_SEED)}
    parts = [f"gains in {len(by[GAIN])} (most: {_extreme(by[GAIN], subject, max)})"] if by[GAIN] else ["gains in none"]
    parts += [f"loses in {len(by[LOSS])} (most: {_extreme(by[LOSS], subject, min)})"] if by[LOSS] else []
    parts += [f"is within the noise in {len(by[OPEN])}"] if by[OPEN] else []
    parts += [f"has one seed only in {len(by[ONE_SEED])}"] if by[ONE_SEED] else []
    return f"Of {len(pairs)} comparisons {who} {_join(parts)} (AP points, 95 % intervals, {_seeds_of(pairs)}, p corrected for all of them)."


def _extreme(pairs: Sequence[Pair], subject: str, pick: Callable[..., Pair]) -> str:
    return _item(pick(pairs, key=lambda pair: pair.found.delta if pair.found else 0.0), subject)


def _more(pairs: Sequence[Pair], known: Sequence[Pair]) -> tuple[str, ...]:
    waiting = [pair.where or pair.what for pair in pairs if pair.verdict == NOTHING]
    lines = []
    if waiting:
        lines.append(f"No number yet: {', '.join(waiting)}.")
    if any(pair.row.delta_selected for pair in known):
        lines.append(
            f"{SELECTED} Over the seeds that early stopping let through, which were chosen by their AP: too high, and without a mark."
        )
    return tuple(lines)


def _seeds_of(pairs: Sequence[Pair]) -> str:
    counts = sorted({pair.found.pairs or min(pair.row.done, pair.baseline.done) for pair in pairs if pair.found})
    return _seeds(counts[0]) if len(counts) == 1 else f"{counts[0]} to {_seeds(counts[-1])}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def _true(value: float) -> str:
    return signed(value).replace("-", "−")


def _join(texts: Sequence[str], comma: str = ", ") -> str:
    return texts[0] if len(texts) == 1 else f"{comma.join(texts[:-1])} and {texts[-1]}" if texts else ""
