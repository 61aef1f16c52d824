"""``salt-lab power``: how many seeds a difference takes, from a study's own spread, from what others report, or from a given one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import finite, open_records, overrides_argument, read_study, store_option

if TYPE_CHECKING:
    from salt_lab.report.image_draws import StudyImages
    from salt_lab.report.power import StudyPower


@click.command("power", short_help="How many seeds do I need to see 0.3 AP?")
@click.argument("study", metavar="[STUDY]", required=False)
@overrides_argument
@store_option
@click.option(
    "--see",
    type=click.FloatRange(min=0, min_open=True),
    default=0.3,
    show_default=True,
    callback=finite,
    help="True difference, AP points.",
)
@click.option(
    "--power",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    callback=finite,
    help="Chance to find it.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    callback=finite,
    help="Level of the two-sided test.",
)
@click.option(
    "--sd",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    help="Spread (SD) of one arm's runs in AP, instead of the records'.",
)
@click.option("--resamples", type=click.IntRange(min=0), default=1000, show_default=True, help="Of the images; 0: leave the images out.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, one JSON object.")
def command(
    study: str | None,
    overrides: tuple[str, ...],
    store_root: Path | None,
    see: float,
    power: float,
    alpha: float,
    sd: float | None,
    resamples: int,
    as_json: bool,
) -> None:
    """Say how many seeds it takes to see a difference of --see AP in STUDY, and what a number of seeds can tell. Reads the records only.

    The spread is that of the study's own differences between seeds; of what others report on COCO where it has none; or --sd.

    \b
    salt-lab power experiments/quickstart.yaml
    salt-lab power experiments/quickstart.yaml --see 1.0 --power 0.9
    salt-lab power --sd 0.15 --see 0.5
    """
    if study is None and sd is None:
        raise click.UsageError("name a study file, or a spread: --sd 0.15")
    if power <= alpha:
        raise click.UsageError(f"--power {power:g}: must be larger than --alpha {alpha:g}, which chance alone gives")
    from salt_lab.report.power import Ask, study_power

    plan = read_study(study, overrides) if study is not None else None
    store = open_records(store_root)
    results, images = None, None
    if plan is not None:
        from salt_lab.report.image_draws import study_images
        from salt_lab.report.results import load_results

        results = load_results(plan, store)
        images = study_images(results, store, resamples=resamples) if resamples else None
    found = study_power(results, Ask(see, power, alpha), sd, images)
    if as_json:
        click.echo(json.dumps(as_dict(found, images), indent=2))
        return
    from salt_lab.cli.power_words import show_power

    show_power(found, plan, store, images)


def as_dict(found: StudyPower, images: StudyImages | None) -> dict[str, Any]:
    """The answer as plain data, as the fields of :class:`salt_lab.report.power.StudyPower`; ``images`` as those of
    :class:`salt_lab.report.image_draws.StudyImages`, None without a study. Infinity and NaN are None."""
    from dataclasses import asdict

    return plain({**asdict(found), "images": None if images is None else asdict(images)})


def plain(value: Any) -> Any:
    """The same data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
