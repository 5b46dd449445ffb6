"""The model card: what a model is, what it was trained on, how well it measures, what it is not for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

LONGEST = 5000
"""Characters that MLflow's database keeps of a description."""

_LINEAGE = {
    "dataset_version": "Dataset",
    "git_commit": "Commit",
    "code_version": "Code",
    "dagster_run_id": "Run",
    "test_set": "Held-out wells",
}
_FIGURES = ("learning_curve.png", "example.png", "failure.png", "agreement.png", "gain.png")


@dataclass(frozen=True)
class Report:
    """What a training measured, as far as it did; read from its folder.

    Attributes:
        agreement, conditions, plates: tables, empty where they are missing.
        intervals, cost, environment: records, empty where they are missing.
        files: names of figures and references that lie beside the weights.
    """

    agreement: pd.DataFrame = field(default_factory=pd.DataFrame)
    conditions: pd.DataFrame = field(default_factory=pd.DataFrame)
    plates: pd.DataFrame = field(default_factory=pd.DataFrame)
    intervals: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Report:
        """What lies in a model's folder."""
        return cls(
            agreement=_table(folder / "agreement.csv"),
            conditions=_table(folder / "conditions.csv"),
            plates=_table(folder / "plates.csv"),
            intervals=_record(folder / "intervals.json"),
            cost=_record(folder / "cost.json"),
            environment=_record(folder / "environment.json"),
            files=tuple(name for name in (*_FIGURES, "embeddings.parquet") if (folder / name).is_file()),
        )


def model_card(
    organelle: str,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    verdict: str | None = None,
    report: Report | None = None,
    longest: int | None = None,
) -> str:
    """A Markdown model card.

    Args:
        organelle: the recipe's name.
        config: the `config.json` of the model's folder.
        metrics: name → value on the held-out wells, shown where there is no report.
        tags: lineage (dataset_version, git_commit, retraining_cause …), verdicts and links to detectors.
        verdict: the gate's sentence, where it has spoken; else the one among the tags.
        report: what the training measured.
        longest: characters; tables are cut to fit, and say so.
    """
    for rows in (None, 16, 8, 4, 2, 0):
        card = _card(organelle, config or {}, metrics or {}, tags or {}, verdict, report or Report(), rows)
        if longest is None or len(card) <= longest:
            break
    return card if longest is None or len(card) <= longest else card[: longest - 2].rstrip() + " …"


def _card(
    organelle: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    verdict: str | None,
    report: Report,
    rows: int | None,
) -> str:
    lines = [
        f"# {organelle} from transmitted light",
        "",
        f"Predicts the {organelle} stain of CHO cells from one DIC image; what is measured on the prediction "
        "stands for what would be measured on the stained image.",
        "",
        *_facts(config, tags, report),
        *_verdicts(tags, verdict),
    ]
    if not report.agreement.empty:
        lines += ["", "## On held-out wells", "", *_agreement(report.agreement, rows)]
    elif metrics:
        lines += [
            "",
            *_rows(("metric", "value"), ((name, f"{metrics[name]:.4g}") for name in sorted(metrics)), rows),
        ]
    if not report.conditions.empty:
        lines += ["", "## Under corruption, mean over the primary metrics", "", *_conditions(report, rows)]
    if not report.plates.empty:
        lines += ["", "## Plate by plate, mean over the primary metrics", "", *_plates(report.plates, rows)]
    if report.intervals:
        lines += ["", "## Intervals around a prediction", "", *_intervals(report.intervals, rows)]
    lines += _links(tags, report)
    lines += [
        "",
        "**Limits.** Valid for the microscope, cell line and fixation of its training plates; drift "
        "detection watches for departures from them. Not for diagnosis.",
        "",
    ]
    return "\n".join(lines)


def _facts(config: Mapping[str, Any], tags: Mapping[str, str], report: Report) -> list[str]:
    arbitrary = config.get("intensity_units") == "arbitrary"
    unit = (
        "probability of the stain"
        if config.get("target") == "binary"
        else "arbitrary units: intensities compare within one model version only"
        if arbitrary
        else "the stain's own units after background subtraction"
    )
    lines = [f"- **Output:** {unit}"]
    if pixel := config.get("pixel_size_um"):
        lines.append(f"- **Pixel size:** {pixel} µm")
    if network := config.get("network"):
        lines.append("- **Network:** UNet, " + ", ".join(f"{key} {value}" for key, value in network.items()))
    lines += [f"- **{label}:** `{tags[key]}`" for key, label in _LINEAGE.items() if tags.get(key)]
    if cause := tags.get("retraining_cause") or tags.get("corruption"):
        lines.append(f"- **Trained again because of:** {cause}")
    if report.cost:
        lines.append(f"- **Training:** {_cost(report.cost)}")
    if packages := report.environment.get("packages"):
        python = f"Python {report.environment['python']}"
        lines.append(f"- **Environment:** {python}, " + ", ".join(f"{k} {v}" for k, v in packages.items()))
    return lines


def _cost(cost: Mapping[str, Any]) -> str:
    said = [f"{cost['seconds']:g} s on {cost['device']}"]
    energy = cost.get("energy_kwh")
    said.append("energy not told by the platform" if energy is None else f"{energy * 1000:.3g} Wh")
    said += [f"{money:.3g} {cost['currency']} on {name}" for name, money in cost.get("money", {}).items()]
    return "; ".join(said)


def _verdicts(tags: Mapping[str, str], verdict: str | None) -> list[str]:
    said = {
        "Gate": verdict or tags.get("gate_reason"),
        "Champion because": tags.get("promotion_reason"),
        "Rolled back because": tags.get("rollback_reason"),
    }
    if said["Champion because"] == said["Gate"]:
        del said["Champion because"]
    return [line for name, text in said.items() if text for line in ("", f"**{name}:** {text}")]


def _agreement(table: pd.DataFrame, rows: int | None) -> Iterable[str]:
    head = ("feature", "Pearson (95 %)", "Spearman", "concordance", "bias", "limits of agreement", "n")
    body = (
        (
            row.feature,
            f"{_n(row.pearson)} ({_n(row.pearson_ci_lower)}–{_n(row.pearson_ci_upper)})",
            _n(row.spearman),
            _n(row.concordance),
            _n(row.bias),
            f"{_n(row.loa_lower)} to {_n(row.loa_upper)}",
            row.n,
        )
        for row in table[table["pearson"].notna()].itertuples()
    )
    return _rows(head, body, rows)


def _conditions(report: Report, rows: int | None) -> Iterable[str]:
    mean = report.conditions.groupby("condition", sort=False).mean(numeric_only=True)
    body = (
        (
            name,
            int(row["n_wells"]),
            f"{_n(row['mean_error'])} ({_n(row['mean_error_ci_lower'])}–{_n(row['mean_error_ci_upper'])})",
            _n(row["pearson"]),
            _n(row.get("pixel_pearson")),
            f"{row.get('clipped_share', 0):.0%}",
        )
        for name, row in mean.iterrows()
    )
    head = ("condition", "wells", "mean abs. log error (95 %)", "Pearson", "pixel Pearson", "clipped")
    return _rows(head, body, rows)


def _plates(plates: pd.DataFrame, rows: int | None) -> Iterable[str]:
    mean = plates.groupby(["plate", "side"], sort=False).mean(numeric_only=True).reset_index()
    body = (
        (
            row["plate"],
            row["side"],
            int(row["n_wells"]),
            *(_n(row[name]) for name in ("mean_error", "pearson", "pixel_pearson")),
        )
        for _, row in mean.iterrows()
    )
    return _rows(("plate", "side", "wells", "mean abs. log error", "Pearson", "pixel Pearson"), body, rows)


def _intervals(intervals: Mapping[str, Any], rows: int | None) -> Iterable[str]:
    body = (
        (
            feature,
            f"× or ÷ {2.718281828459045 ** found['reach']:.2f}" if "reach" in found else "–",
            f"{found['level']:.0%}, {found['scope']}" if "reach" in found else found["reason"],
        )
        for feature, found in intervals.items()
    )
    return _rows(("feature", "of the predicted value", "claim"), body, rows)


def _links(tags: Mapping[str, str], report: Report) -> list[str]:
    detectors = {
        key.removeprefix("detector."): text for key, text in tags.items() if key.startswith("detector.")
    }
    lines = [f"- Drift detector on {name}: {text}" for name, text in sorted(detectors.items())]
    if "embeddings.parquet" in report.files:
        lines.insert(0, "- Reference embeddings: `embeddings.parquet`")
    if figures := [name for name in report.files if name.endswith(".png")]:
        lines.append("- Figures: " + ", ".join(f"`{name}`" for name in figures))
    return ["", "## Beside the weights", "", *lines] if lines else []


def _rows(head: tuple[str, ...], body: Iterable[tuple[Any, ...]], rows: int | None) -> Iterable[str]:
    """A Markdown table, cut after so many rows."""
    every = [tuple(map(str, row)) for row in body]
    kept = every if rows is None else every[:rows]
    if not kept:
        return [f"{len(every)} rows, in the tables beside the weights."]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *kept)]
    return lines + ([f"\n… and {len(every) - len(kept)} more rows."] if len(kept) < len(every) else [])


def _n(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):.3g}"


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
