"""Evidently's report on the columns of a table."""

from __future__ import annotations

import os
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellabel.errors import InputError


def evidently_report(
    current: pd.DataFrame, reference: pd.DataFrame, html_path: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Which columns of a plate's table are distributed unlike those of the training plates.

    Evidently tests column by column; wells of one plate are not independent, so its p-values are a guide to
    where to look, never an alarm.

    Args:
        current: the plate's wells or fields.
        reference: those of the training plates.
        html_path: where the page (about 4 MB) goes; None writes none.

    Returns:
        JSON-able: drifted (number of columns), share, columns {name: {score, method, threshold, drifted}},
        skipped (numeric columns that one side lacks or that hold no number), html (path or None).

    Raises:
        InputError: the tables share no numeric column with values.
    """
    now, before, skipped = _shared(current, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # constant columns divide by zero inside its tests
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
        from evidently import Report
        from evidently.presets import DataDriftPreset

        result = Report([DataDriftPreset()], include_tests=True).run(current_data=now, reference_data=before)
        content = result.dict()
    if html_path is not None:
        _save(result, Path(html_path))
    status = {test["metric_config"]["metric_id"]: test["status"] for test in content["tests"]}
    columns: dict[str, dict[str, Any]] = {
        metric["config"]["column"]: {
            "score": float(metric["value"]),
            "method": str(metric["config"]["method"]),
            "threshold": float(metric["config"]["threshold"]),
            "drifted": str(getattr(status[metric["id"]], "value", status[metric["id"]])) == "FAIL",
        }
        for metric in content["metrics"]
        if "column" in metric["config"]
    }
    drifted = sum(column["drifted"] for column in columns.values())
    return {
        "drifted": drifted,
        "share": drifted / len(columns),
        "columns": columns,
        "skipped": skipped,
        "html": None if html_path is None else str(html_path),
    }


def _shared(current: pd.DataFrame, reference: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The features that both tables hold as numbers, and the names of those that were left out."""
    sides = [
        table.select_dtypes("number").replace([np.inf, -np.inf], np.nan).dropna(axis="columns", how="all")
        for table in (current, reference)
    ]
    features = [[name for name in side if not str(name).startswith("Metadata_")] for side in sides]
    shared = [name for name in features[0] if name in features[1]]
    if not shared:
        raise InputError(
            "The two tables share no numeric feature with values: measure the plate and the training "
            "plates alike."
        )
    wanted = {
        str(name)
        for table in (current, reference)
        for name in table.select_dtypes("number")
        if not str(name).startswith("Metadata_")
    }
    return sides[0][shared].astype(float), sides[1][shared].astype(float), sorted(wanted - set(shared))


def _save(result: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        result.save_html(str(scratch))
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
