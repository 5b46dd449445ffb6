"""What is written beside a trained model: tables, figures and costs, from which its card is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cellabel.evaluation import CLEAN, downstream_metrics, error_table
from cellabel.loop.held_out import HeldOut, LabelledField
from cellabel.loop.stains import stained
from cellabel.networks import OrganelleModel
from cellabel.organelles import Organelle
from cellabel.prediction import predict_stain

__all__ = ["condition_table", "plate_table", "report_metrics", "write_figures", "write_tables"]

CONDITIONS, PLATES = "conditions.csv", "plates.csv"
RESAMPLES = 500
_AGREEMENT = ("pearson", "pearson_ci_lower", "pearson_ci_upper", "spearman", "concordance", "bias")


def condition_table(held_out: HeldOut, organelle: Organelle) -> pd.DataFrame:
    """How well held-out wells are measured, clean and under each corruption and severity.

    Returns:
        One row a condition and primary metric: condition, metric, n_plates, n_wells, mean_error (|log error|)
        with mean_error_ci_lower, _upper; pearson with pearson_ci_lower, _upper; spearman, concordance, bias;
        pixel_pearson, clipped_share.
    """
    parts = []
    for condition in held_out.conditions:
        true, predicted = held_out.pair(condition)
        table = _measured(true, predicted, organelle, held_out.errors(organelle.primary_metrics, condition))
        rows = held_out.measured[held_out.measured["condition"] == condition]
        shares = {name: rows[name].mean() for name in ("pixel_pearson", "clipped_share") if name in rows}
        parts.append(table.assign(**shares))
        parts[-1].insert(0, "condition", condition)
    return pd.concat(parts, ignore_index=True)


def plate_table(sides: Mapping[str, HeldOut], organelle: Organelle) -> pd.DataFrame:
    """How well the wells of each labelled plate are measured, clean.

    Args:
        sides: "held out", "trained on" … → measurements.
        organelle: the recipe.

    Returns:
        One row a plate, side and primary metric, with the columns of `condition_table`.
    """
    parts = []
    for side, held_out in sides.items():
        true, predicted = held_out.pair()
        errors = held_out.errors(organelle.primary_metrics)
        pixel = held_out.measured[held_out.measured["condition"] == CLEAN]
        for plate in predicted["Metadata_Plate"].unique():
            left, right = (table[table["Metadata_Plate"] == plate] for table in (true, predicted))
            table = _measured(left, right, organelle, errors[errors["plate"] == plate])
            mean = pixel.loc[pixel["Metadata_Plate"] == plate, "pixel_pearson"].mean()
            table.insert(0, "plate", plate)
            table.insert(1, "side", side)
            parts.append(table.assign(pixel_pearson=mean))
    return pd.concat(parts, ignore_index=True)


def _measured(
    true: pd.DataFrame, predicted: pd.DataFrame, organelle: Organelle, errors: pd.DataFrame
) -> pd.DataFrame:
    kept = [name for name in true if str(name).startswith("Metadata_")] + list(organelle.primary_metrics)
    agreement = downstream_metrics(true[kept], predicted[kept], n_bootstrap=RESAMPLES)
    agreement = agreement.rename(columns={"feature": "metric"})[["metric", *_AGREEMENT]]
    return error_table(errors, n_bootstrap=RESAMPLES).merge(agreement, on="metric", how="left")


def write_tables(
    folder: Path, held_out: HeldOut, seen: HeldOut | None, organelle: Organelle
) -> dict[str, float]:
    """Write conditions and plates into a model's folder; returns them as metrics."""
    conditions = condition_table(held_out, organelle)
    conditions.to_csv(folder / CONDITIONS, index=False)
    sides = {"held out": held_out} | ({} if seen is None else {"trained on": seen})
    plates = plate_table(sides, organelle)
    plates.to_csv(folder / PLATES, index=False)
    return report_metrics(conditions, plates)


def report_metrics(conditions: pd.DataFrame, plates: pd.DataFrame) -> dict[str, float]:
    """The tables as named numbers, for comparing versions side by side."""
    metrics: dict[str, float] = {}
    for _, row in conditions.iterrows():
        condition, metric = row["condition"], row["metric"]
        metrics[f"error {_plain(condition)} {metric}"] = float(row["mean_error"])
        if condition == CLEAN:
            for end in ("lower", "upper"):
                metrics[f"error clean {metric} {end}"] = float(row[f"mean_error_ci_{end}"])
                metrics[f"pearson_{metric}_{end}"] = float(row[f"pearson_ci_{end}"])
    for _, row in plates[plates["side"] == "held out"].iterrows():
        metrics[f"error on {row['plate']} {row['metric']}"] = float(row["mean_error"])
    return metrics


def _plain(condition: str) -> str:
    """A condition in characters that MLflow takes in a metric's name."""
    return condition.replace("µ", "u").replace("×", "x").replace("+", "")


def write_figures(
    folder: Path,
    model: OrganelleModel,
    fields: Sequence[LabelledField],
    held_out: HeldOut,
    history: pd.DataFrame,
    organelle: Organelle,
    *,
    brief: bool = False,
) -> None:
    """Draw the learning curve, a typical and the worst held-out field, and counts against the stain.

    Args:
        folder: of the model.
        model: the model.
        fields: held-out fields.
        held_out: what was measured on them.
        history: one row an epoch.
        organelle: the recipe.
        brief: leave out the counts, to save time.
    """
    from cellabel.reports import learning_curve_figure, scatter_figure

    (folder / "learning_curve.png").write_bytes(learning_curve_figure(history))
    clean = held_out.measured[
        (held_out.measured["side"] == "predicted") & (held_out.measured["condition"] == CLEAN)
    ].sort_values("pixel_pearson", na_position="first", ignore_index=True)
    for name, row in (("example", clean.iloc[len(clean) // 2]), ("failure", clean.iloc[0])):
        field = next(one for one in fields if _is(one, row))
        (folder / f"{name}.png").write_bytes(_beside(model, field, organelle, float(row["pixel_pearson"])))
    if brief:
        return
    true, predicted = held_out.pair()
    metric = organelle.primary_metrics[0]
    figure = scatter_figure(true[metric], predicted[metric], metric, groups=true["Metadata_Plate"])
    (folder / "agreement.png").write_bytes(figure)


def _is(one: LabelledField, row: pd.Series) -> bool:
    return (one.field.plate_id, one.field.well, one.field.site) == (
        row["Metadata_Plate"],
        row["Metadata_Well"],
        row["Metadata_Site"],
    )


def _beside(model: OrganelleModel, one: LabelledField, organelle: Organelle, pearson: float) -> bytes:
    from cellabel.reports import example_figure

    raw, pixel = one.field.image("transmitted"), one.plate.pixel_size_um
    image = predict_stain(model, raw, pixel_size_um=pixel).image
    truth = stained(one.field, one.plate, organelle)
    place = f"{one.field.plate_id} {one.field.well} site {one.field.site}"
    return example_figure(
        raw,
        None if truth is None else truth.target,
        image,
        title=f"{place}, pixel Pearson {pearson:.3f}",
        pixel_size_um=pixel,
    )
