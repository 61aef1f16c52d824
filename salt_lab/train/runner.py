"""mmengine's Runner, writing its log to one file and nothing to the terminal, where the study's progress is shown."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from mmengine.utils.dl_utils import collect_env

from salt_lab.train.config_text import ReadableConfig


class LabRunner(Runner):
    """A Runner whose log goes to ``config.log_file`` alone, appended to on resuming."""

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Called first of all by ``Runner.__init__``, so nothing is printed before."""
        logger = super().build_logger(log_level=log_level, log_file=self.cfg.get("log_file", log_file), file_mode="a", **kwargs)
        for handler in list(logger.handlers):
            if not isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
        return logger

    def dump_config(self) -> None:
        """The trial's folder has its config already."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """What mmengine writes there, without asking compilers for their versions before every trial of a process."""
        told = {**env_cfg, **self._randomness_cfg, "seed": self.seed, "launcher": self.launcher, "workers": self.world_size}
        for title, values in (("System environment", surroundings()), ("Runtime environment", told)):
            self.logger.info("\n    ".join([f"{title}:", *(f"{name}: {value}" for name, value in values.items())]))
        self.logger.info(f"Config:\n{self.cfg.pretty_text}")


@lru_cache(maxsize=1)
def surroundings() -> dict[str, Any]:
    """Compilers, libraries and devices of this process; half a second."""
    return dict(collect_env())


@contextlib.contextmanager
def warnings_into(log_file: Path) -> Iterator[None]:
    """Python warnings raised inside go to ``log_file``, not to the terminal."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), log_file.open("a") as log:
        seen: set[str] = set()

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
            text = f"{category.__name__}: {message}"
            if text not in seen:
                seen.add(text)
                print(f"{text} ({Path(filename).name}:{lineno})", file=log, flush=True)

        warnings.showwarning = show
        yield


def build_runner(config: Config, name: str, log_file: Path) -> LabRunner:
    """A runner for ``config``.

    Args:
        config: complete, with a work_dir.
        name: experiment name; loggers of different names never mix.
        log_file: where the log goes.
    """
    config.log_file = str(log_file)
    config.experiment_name = name
    import_modules_from_strings(**config.get("custom_imports", {}))  # mmengine does so only where it reads a config from a file
    return LabRunner.from_cfg(ReadableConfig.of(config))
