"""The model card: what a model is, what it was trained on, how well it measures, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LINEAGE = {
    "dataset_version": "Dataset",
    "code_version": "Code",
    "dagster_run_id": "Run",
}


def model_card(
    organelle: str,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    verdict: str | None = None,
) -> str:
    """A Markdown model card.

    Args:
        organelle: the recipe's name.
        config: the `config.json` of the model's folder.
        metrics: name → value on the held-out wells.
        tags: lineage (dataset_version, code_version, dagster_run_id, retraining_cause …).
        verdict: the gate's sentence, where it has spoken.
    """
    config, tags = config or {}, tags or {}
    arbitrary = config.get("intensity_units") == "arbitrary"
    unit = (
        "probability of the stain"
        if config.get("target") == "binary"
        else "arbitrary units: intensities compare within one model version only"
        if arbitrary
        else "the stain's own units after background subtraction"
    )
    lines = [
        f"# {organelle} from transmitted light",
        "",
        f"Predicts the {organelle} stain of CHO cells from one DIC image; what is measured on the prediction "
        "stands for what would be measured on the stained image.",
        "",
        f"- **Output:** {unit}",
    ]
    if pixel := config.get("pixel_size_um"):
        lines.append(f"- **Pixel size:** {pixel} µm")
    if network := config.get("network"):
        lines.append("- **Network:** UNet, " + ", ".join(f"{key} {value}" for key, value in network.items()))
    lines += [f"- **{label}:** `{tags[key]}`" for key, label in _LINEAGE.items() if tags.get(key)]
    if cause := tags.get("retraining_cause"):
        lines.append(f"- **Trained again because of:** {cause}")
    if verdict:
        lines += ["", f"**Gate:** {verdict}"]
    if metrics:
        lines += ["", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())]
    lines += [
        "",
        "**Limits.** Valid for the microscope, cell line and fixation of its training plates; drift "
        "detection watches for departures from them. Not for diagnosis.",
        "",
    ]
    return "\n".join(lines)
