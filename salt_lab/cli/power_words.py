"""How ``salt-lab power`` says it: sentences and a small table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import show_table

if TYPE_CHECKING:
    from salt_lab.evaluate.power import Noise
    from salt_lab.record.store import Store
    from salt_lab.report.image_draws import StudyImages
    from salt_lab.report.power import MarkPower, StudyPower
    from salt_lab.spec.study import Study

#: More seeds than these are not proposed as a command.
MANY_SEEDS = 20


def show_power(found: StudyPower, study: Study | None, store: Store, images: StudyImages | None) -> None:
    """Print the spread and where it is from, the seeds that are needed, what other numbers of seeds can tell, the images' part, what to do next.

    Args:
        found: the answer.
        study: whose it is; None = a spread that was given.
        store: the study's results folder.
        images: the images' part; None = nobody asked.
    """
    ask = found.ask
    click.echo(f"{study.name if study else 'power'}: how many seeds to see {ask.see:g} AP?")
    for line in (_spread(found), _needed(found), *_family(found), *(_mark(found, images) if images else ())):
        click.echo(line)
    click.echo()
    header = ["seeds in each arm", f"{1 - ask.alpha:.0%} interval", f"seen with {ask.power:.0%} power", "least p of sign flips"]
    rows = [[line.seeds, f"± {ap(line.half)}", ap(line.seen), f"{line.flips:.3g}"] for line in found.lines]
    columns = len(header) if found.noise.paired else len(header) - 1
    show_table(header[:columns], [row[:columns] for row in rows])
    click.echo()
    for line in (*_meaning(found), *(_images(images, found) if images else ())):
        click.echo(line)
    if study is not None:
        for line in _next(found, study, store):
            click.echo(line)


def ap(points: float) -> str:
    """AP points with as many decimals as they deserve.

    >>> ap(0.3401), ap(12.43)
    ('0.34', '12.4')
    """
    return f"{points:.2f}" if points < 10 else f"{points:.1f}"


def count(number: int | None) -> str:
    """A number of seeds.

    >>> count(1133), count(None)
    ('1,133', 'more than 100,000')
    """
    from salt_lab.evaluate.power import MOST_SEEDS

    return f"more than {MOST_SEEDS:,}" if number is None else f"{number:,}"


def _spread(found: StudyPower) -> str:
    from salt_lab.report.power import WHY

    noise, why = found.noise, WHY[found.why]
    if noise.source == "given":
        return f"Seed noise: SD {noise.sd:g} AP between the runs of one arm, as given."
    if noise.source == "published":
        return (
            f"{why}: what follows rests on what others report for COCO, where two runs of one config lie 0.1 to 0.3 AP apart: SD {ap(noise.sd)} "
            f"AP between the runs of one arm ({ap(noise.low)} to {ap(noise.high)}). Other data and shorter training may vary far more."
        )
    what = "in the difference between the arms of one seed" if noise.paired else "between the runs of one cell"
    return (f"{why}. " if why else "") + f"Seed noise: SD {ap(noise.sd)} AP {what} ({_behind(noise)}; that SD is known as {_range(noise)})."


def _behind(noise: Noise) -> str:
    many = ("comparison", "pairs of seeds") if noise.paired else ("cell", "runs")
    return f"{noise.groups} {many[0]}{'s' if noise.groups != 1 else ''}, {noise.runs} {many[1]}"


def _range(noise: Noise) -> str:
    return f"{ap(noise.low)} to {ap(noise.high)}, 95 %"


def _needed(found: StudyPower) -> str:
    ask, noise = found.ask, found.noise
    unit = "pairs of seeds (paired t test)" if noise.paired else "seeds in each arm (t test of two independent arms)"
    low, high = count(found.needed_low), count(found.needed_high)
    between = "" if low == high else f"; {low} to {high}, as that spread is uncertain"
    here = " on these images" if found.mark else ""
    return f"To see {ask.see:g} AP{here} with {ask.power:.0%} power at p < {ask.alpha:g}: {count(found.needed)} {unit}{between}."


def _family(found: StudyPower) -> list[str]:
    if found.comparisons < 2:
        return []
    level = found.ask.alpha / found.comparisons
    return [f"With the study's {found.comparisons} comparisons, Holm asks p < {level:.2g} of the first: {count(found.needed_all)}."]


def _mark(found: StudyPower, images: StudyImages) -> list[str]:
    """Whether the table's mark can be had, which counts seeds and images."""
    one, every = found.mark, found.mark_all
    if one is None or every is None:
        return []
    said = [f"In the table, whose mark counts the images too (ours), at p < {one.level:g}: {_mark_takes(one, found, images)}"]
    if found.comparisons > 1 and not one.never:
        said.append(f"In the table at Holm's p < {every.level:.2g}: {_mark_takes(every, found, images)}")
    return said


def _mark_takes(mark: MarkPower, found: StudyPower, images: StudyImages) -> str:
    if mark.never:
        return (
            f"no number of seeds earns the table's mark for {found.ask.see:g} AP: these {images.images:,} images leave {ap(mark.least)} AP as the "
            f"least that {found.ask.power:.0%} of studies show, however many seeds; more images are needed, {mark.images:,} at the very least."
        )
    low, high = count(mark.needed_low), count(mark.needed_high)
    between = "" if low == high else f"; {low} to {high}, as the spread is uncertain"
    return f"{count(mark.needed)} pairs of seeds{between}."


def _meaning(found: StudyPower) -> list[str]:
    noise = found.noise
    root = "SD / sqrt(n), n - 1" if noise.paired else "SD * sqrt(2 / n), 2n - 2"
    said = [
        f"Interval: half its width is t * {root} degrees of freedom. Seen: a true difference of this size gives p < {found.ask.alpha:g} in "
        f"{found.ask.power:.0%} of studies.",
        "Seed noise is what another seed would change on the same images; more seeds shrink it.",
    ]
    if noise.paired:
        fewest = _fewest_flips(found.ask.alpha)
        said.insert(1, f"Sign flips: the exact test cannot go below 2^(1 - n), so p < {found.ask.alpha:g} takes {fewest} pairs at least.")
    return said


def _fewest_flips(alpha: float) -> int:
    from salt_lab.evaluate.seeds import smallest_sign_flip_p

    return next(n for n in range(1, 2000) if smallest_sign_flip_p(n) < alpha)


def _images(images: StudyImages, found: StudyPower) -> list[str]:
    if images.reason:
        return [f"Image noise, what other images would change and no seed takes away: not known here ({images.reason})."]
    what = "a difference" if images.paired else "AP"
    at_most = "at most " if math.isnan(images.share) else ""  # one seed: what is its own on these images cannot be told apart
    said = [
        f"Image noise is what other images would change; no seed takes it away: {images.images:,} images leave {at_most}± {ap(images.half)} AP "
        f"to {what} (95 %) however many seeds are trained."
    ]
    if not math.isnan(images.share) and found.noise.source != "given":  # the share is that of the records' spread
        said.append(
            f"With the seeds that are there, {images.share:.0%} of the variance is the images' and {1 - images.share:.0%} the seeds'."
        )
    if images.half > found.ask.see and found.mark is None:
        said.append(
            f"So a difference of {found.ask.see:g} AP can be shown on these images, not for others of their kind: that takes more images."
        )
    return said


def _next(found: StudyPower, study: Study, store: Store) -> list[str]:
    from salt_lab.record.commands import command_for

    if found.why == "nothing done":
        return [f"next: {command_for('run', study, store)}"]
    see, mark = found.ask.see, found.mark_all
    if mark is not None and mark.never:
        return [f"next: evaluate on more images, {mark.images:,} at the very least; more seeds alone cannot earn the mark for {see:g} AP."]
    wanted = 3 if found.why in ("one seed", "not paired") else mark.needed if mark else found.needed_all
    if wanted is not None and wanted <= found.seeds:
        return [f"The {found.seeds} seeds that are there are enough for {see:g} AP{'' if mark else ' on these images'}."]
    if wanted is not None and wanted <= MANY_SEEDS:
        then = "; then salt-lab look" if store.holds_looks else ""
        return [f"next: {command_for('run', study, store, f'seeds={seed_list(study.seeds, wanted)}')}   # what is done is kept{then}"]
    seen = next((line.seen for line in found.lines if line.seeds == found.seeds), None)
    easier = f" With the {found.seeds} seeds that are there, {ap(seen)} AP can be seen on these images." if seen else ""
    return [f"Seeds alone will hardly do.{easier} Longer training and more data make runs differ less; or ask for more: --see."]


def seed_list(seeds: tuple[int, ...], wanted: int) -> str:
    """The study's seeds and the next free ones, as an override.

    >>> seed_list((0, 7), 4)
    '[0,7,1,2]'
    """
    free = (number for number in range(wanted + len(seeds)) if number not in seeds)
    chosen = [*seeds]
    while len(chosen) < wanted:
        chosen.append(next(free))
    return f"[{','.join(map(str, chosen))}]"
