"""trials.parquet and points.parquet of a study archive: what the journals say, for tools that read no journals. Never read back by the lab."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from salt_lab.record import rows
from salt_lab.record.fold import COCO_NAMES, Record
from salt_lab.record.store import Store

#: Trial id -> key, name and seed of its cell.
Cells = dict[str, tuple[str, str, int]]
#: (trial id, record number) -> MLflow run id.
RunIds = dict[tuple[str, int], "str | None"]
COSTS = ("parameters", "gflops", *rows.SPENT)
#: Records whose points are in memory at once.
CHUNK = 500


def records_of(store: Store, trial_id: str) -> Iterator[tuple[int, Store]]:
    """Number of each of the trial's records and the store that reads it, oldest first."""
    earlier = store.earlier(trial_id)
    yield from earlier.items()
    if store.journal(trial_id).size():
        yield max(earlier, default=0) + 1, store


def write_tables(there: Store, known: Sequence[str], cells: Cells, run_ids: RunIds, study: str) -> dict[str, int]:
    """Write both files into the archive ``there``, from its own journals.

    Returns:
        How many ``records`` and ``points`` are in them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = {"records": 0, "points": 0}
    schemas = pa.schema(_TRIAL_FIELDS), pa.schema(_POINT_FIELDS)
    temporary = [there.root / f".{name}.{os.getpid()}" for name in ("trials.parquet", "points.parquet")]
    with pq.ParquetWriter(temporary[0], schemas[0]) as trials, pq.ParquetWriter(temporary[1], schemas[1]) as points:
        for start in range(0, len(known), CHUNK):
            folded = [
                (past.record(trial_id), number) for trial_id in known[start : start + CHUNK] for number, past in records_of(there, trial_id)
            ]
            lines = [_trial_row(record, number, cells[record.trial_id], run_ids, study) for record, number in folded]
            values = [(record.trial_id, number, *point[:4]) for record, number in folded for point in rows.points(record)]
            trials.write_table(pa.Table.from_pylist(lines, schema=schemas[0]))
            columns = zip(*values, strict=True) if values else [[] for _ in _POINT_FIELDS]
            order = [list(column) for column in columns]
            points.write_table(pa.table(dict(zip(_POINT_ORDER, order, strict=True))).select(schemas[1].names).cast(schemas[1]))
            counts = {"records": counts["records"] + len(lines), "points": counts["points"] + len(values)}
    for path, name in zip(temporary, ("trials.parquet", "points.parquet"), strict=True):
        path.replace(there.root / name)
    return counts


_POINT_ORDER = ("trial_id", "record", "name", "value", "time_ms", "step")
_POINT_FIELDS = [
    ("trial_id", "string"), ("record", "int32"), ("name", "string"), ("step", "int32"), ("value", "float64"), ("time_ms", "int64"),
]  # fmt: skip
_TEXTS = ("study", "cell", "cell_name", "trial_id", "run_id", "state", "reason", "launch_id", "data_fingerprint")
_JSON = ("code_versions", "training_codes", "trial", "effective", "provenance", "resources", "input_size")
_TRIAL_FIELDS = [
    *((name, "string") for name in _TEXTS),
    ("record", "int32"), ("seed", "int64"), ("attempt", "int32"), ("started", "float64"), ("time", "float64"),
    *((name, "float64") for name in (*COCO_NAMES, *COSTS)),
    *((name, "string") for name in _JSON),
]  # fmt: skip


def _trial_row(record: Record, number: int, cell: tuple[str, str, int], run_ids: RunIds, study: str) -> dict[str, Any]:
    """A row of trials.parquet; what is no number or plain text is JSON. Numbers only of a finished trial."""
    metrics = (record.metrics or {}) if record.state == "done" else {}
    plain = {name: getattr(record, name) for name in ("state", "reason", "launch_id", "data_fingerprint", "attempt", "started", "time")}
    nested = {"effective": record.built.get("effective"), "input_size": record.built.get("input_size")}
    nested |= {name: getattr(record, name) for name in ("code_versions", "training_codes", "trial", "provenance", "resources")}
    return {
        "study": study,
        **dict(zip(("cell", "cell_name", "seed"), cell, strict=True)),
        "trial_id": record.trial_id,
        "record": number,
        "run_id": run_ids.get((record.trial_id, number)),
        **plain,
        **{name: metrics.get(name) for name in COCO_NAMES},
        **{name: _number(record.cost.get(name)) for name in COSTS},
        **{name: json.dumps(value) for name, value in nested.items()},
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
