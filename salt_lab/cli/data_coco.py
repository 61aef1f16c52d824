"""``salt-lab data coco``: all of COCO 2017 into a folder, or is the copy in a folder whole?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import on_terminal

if TYPE_CHECKING:
    from salt_lab.data.official import CopyReport

#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY = 30.0


@click.command("coco", short_help="Fetch COCO 2017 from its official site, or check a copy.")
@click.option("--root", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Folder of the copy.")
@click.option("--check", "only_check", is_flag=True, help="Only check what is there; needs no network.")
@click.option("--from", "address", metavar="URL", help="A mirror, instead of http://images.cocodataset.org; the checksums hold there too.")
@click.option("--keep-zips", is_flag=True, help="Leave the zip files in DIR/.download.")
@click.option("--samples", type=click.IntRange(min=0), default=50, show_default=True, help="Images of each split that are opened to check.")
def command(root: Path, only_check: bool, address: str | None, keep_zips: bool, samples: int) -> None:
    """Fetch COCO 2017 (annotations, val2017, train2017; 19 GiB of zip files) into DIR and check it; or check the copy that is there.

    \b
    salt-lab data coco --root /data/coco              fetch what is missing, check everything
    salt-lab data coco --root /data/coco --check      no network needed

    Interrupted, it goes on where it was when the same command is given again. A folder that is there is never overwritten.
    """
    from salt_lab.data.official import check_copy

    root = root.expanduser()
    if not only_check:
        _fetch(root, address, keep_zips)
    elif address or keep_zips:
        raise click.UsageError("--check fetches nothing: leave --from and --keep-zips out")
    click.echo(f"checking {root} ...", err=True)
    _say_fit(root, check_copy(root, release(), samples=samples))


def release() -> Any:
    """What is fetched and checked."""
    from salt_lab.data.official import COCO_2017

    return COCO_2017


def _fetch(root: Path, address: str | None, keep_zips: bool) -> None:
    from salt_lab.data.download import bytes_here, download, most_bytes
    from salt_lab.data.official import ADDRESS, absent
    from salt_lab.data.unpack import gib

    if address is not None and not address.startswith(("http://", "https://")):
        raise click.UsageError(f"--from {address}: give an address that begins with http:// or https://")
    if lacking := absent(root, release()):
        scratch = root / ".download"
        left = sum(archive.size - bytes_here(scratch, archive) for archive in lacking)
        click.echo(
            f"{', '.join(archive.folder for archive in lacking)}: {gib(left)} to fetch from {address or ADDRESS} "
            f"({_at(left, 100)} at 100 MB/s, {_at(left, 10)} at 10 MB/s); takes {gib(most_bytes(scratch, lacking, keep_zips))} of the disk on "
            f"its way, {gib(sum(archive.unpacked for archive in lacking))} in the end"
        )
    try:
        with shown() as progress:
            brought = download(root, address or ADDRESS, release=release(), progress=progress, keep_zips=keep_zips)
    except KeyboardInterrupt:
        click.echo(f"what was fetched is kept in {root / '.download'}: the same command goes on from there", err=True)
        raise
    click.echo(f"brought {', '.join(brought)}" if brought else "nothing to fetch: all folders are there")


def _at(number: float, megabytes: int) -> str:
    from salt_lab.schedule.estimate import duration

    return str(duration(number / (megabytes * 1e6)))


def _say_fit(root: Path, report: CopyReport) -> None:
    counts = "; ".join(f"{name} {number} images, {report.boxes[name]} boxes" for name, number in report.images.items())
    click.echo(f"whole: {counts}; {report.opened} images drawn by chance open and have the size that the annotations say")
    click.echo(f"next: export SALT_LAB_COCO={root.absolute()}; salt-lab plan experiments/paper/hosts.yaml")


def shown() -> Bars | Lines:
    """Bars with speed and time left on a terminal, a line every half minute elsewhere."""
    return Bars() if on_terminal() else Lines()


class Bars:
    """One bar per archive and step."""

    def __init__(self) -> None:
        from rich import progress

        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn(binary_units=True))
        self._bars = progress.Progress(*columns, progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        self._task: Any = None
        self._total = 0

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new bar; the one before is full."""
        if self._task is not None:
            self._bars.update(self._task, completed=self._total)
        self._total = total
        self._task = self._bars.add_task(what, total=total, completed=done)

    def advance(self, number: int) -> None:
        """So many bytes more."""
        self._bars.advance(self._task, number)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


class Lines:
    """For pipes and logs."""

    def __init__(self) -> None:
        self._what, self._total, self._done, self._first = "", 0, 0, 0
        self._began = self._last = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Name the step."""
        self._what, self._total, self._done, self._first = what, total, done, done
        self._began = self._last = time.monotonic()
        click.echo(what + (f", going on from {100 * done // total} %" if done else ""))

    def advance(self, number: int) -> None:
        """A line with share, speed and time left, every half minute."""
        self._done += number
        now = time.monotonic()
        if now - self._last < LINE_EVERY:
            return
        from salt_lab.schedule.estimate import duration

        self._last = now
        speed = (self._done - self._first) / (now - self._began)
        left = duration(max(self._total - self._done, 0) / speed) if speed else "unknown"
        click.echo(f"{self._what}: {100 * self._done // self._total} %, {speed / 1e6:.1f} MB/s, {left} left")

    def say(self, text: str) -> None:
        """A line."""
        click.echo(text)
