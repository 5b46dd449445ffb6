"""A new champion on trial: on its first plates the one before measures the same control wells.

Control wells (parental cells, a reference clone) hold the same cells on every plate, so a model's values of
them may only scatter. Each model has a chart of its own: the logarithm of what it measured in the control
wells of earlier plates. Where a new plate's controls leave the chart of the new champion and not that of the
old one, the model is at fault, not the plate, and the old champion returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.errors import InputError
from cellabel.loop.training import drifted_plates
from cellabel.measurement import measure_field, measure_well
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.prediction import predict_field
from cellabel.registry import RETURNED_FROM, ModelRegistry, ModelVersion
from cellabel.stores import Home

__all__ = ["Trial", "control_chart", "watch_new_champion"]

LEAST_FREEDOM = 5
"""Degrees of freedom below which a chart says nothing."""

SHADOWED = "shadowed_plates"
"""Tag of a version: the plates on which it was judged."""

LEFT_CHART = "left_chart_on"
"""Tag of a version: the plate for which its trial rolls it back, written before that is done."""


@dataclass(frozen=True)
class Trial:
    """How a new champion does beside the one before.

    Attributes:
        champion: its version; 0 where none is on trial.
        predecessor: the version that shadows it.
        plates: those whose controls were judged, in order.
        rolled_back: whether the predecessor is champion again.
        sentence: what was found.
        table: one row a plate, model version and metric: plate, version, metric, n_controls, n_history,
            deviation (of the controls' mean log value from the history, in its standard deviations), verdict.
    """

    champion: int
    predecessor: int
    plates: tuple[str, ...]
    rolled_back: bool
    sentence: str
    table: pd.DataFrame


_NOTHING = pd.DataFrame(
    columns=["plate", "version", "metric", "n_controls", "n_history", "deviation", "verdict"]
)


@dataclass(frozen=True)
class _Pair:
    """The champion on trial and the version that shadows it."""

    home: Home
    registry: ModelRegistry
    organelle: Organelle
    champion: ModelVersion
    predecessor: ModelVersion

    def measured(self, version: ModelVersion, plate_id: str) -> pd.DataFrame:
        """The control wells of a plate, as a version measured them when it was champion."""
        table = self.home.tables.read("versions", self.organelle.name, f"v{version.version}", plate_id)
        return _controls(table, self.home.settings.promotion.control_roles)


def watch_new_champion(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, organelle: Organelle
) -> Trial:
    """Judge the control wells of the first plates after the promotion, as many as the settings say.

    Plates that the old champion had predicted before are the history, newer ones are judged, each once.
    Whatever is done may be repeated, and what a killed run has left is finished: a plate that rolls the
    champion back counts as judged once that is done and told.
    """
    champion, predecessor = registry.champion(organelle.name), registry.previous_champion(organelle.name)
    if champion is not None:
        _finish_rollback(registry, ledger, champion)
    if champion is None or predecessor is None or not _on_trial(champion, predecessor):
        return Trial(0, 0, (), False, "no new champion is on trial", _NOTHING)
    return _watch(_Pair(home, registry, organelle, champion, predecessor), ledger)


def _watch(pair: _Pair, ledger: AlertLedger) -> Trial:
    champion, predecessor = pair.champion, pair.predecessor
    most = pair.home.settings.promotion.shadowed_plates
    done = champion.tags.get(SHADOWED, "").split()
    history, new = _plates(pair)
    tables: list[pd.DataFrame] = []
    waiting = ""
    for plate_id in [plate for plate in new if plate not in done]:
        if len(done) >= most:
            break
        table = _judge(pair, plate_id, history)
        if table is None:
            waiting = f"; {plate_id} has no control wells"
        elif not (table["verdict"] != "no chart").any():
            waiting = f"; the charts of {plate_id} have too few control wells on earlier plates"
        elif guilty := _guilty(table, champion, predecessor):
            return _roll_back(pair, ledger, plate_id, guilty, table)
        else:
            done.append(plate_id)
            tables.append(table)
            pair.registry.annotate(pair.organelle.name, champion.version, **{SHADOWED: " ".join(done)})
    sentence = (
        f"version {champion.version} holds on {len(done)} of {most} plates beside "
        f"version {predecessor.version}{waiting}"
    )
    found = pd.concat(tables, ignore_index=True) if tables else _NOTHING
    return Trial(champion.version, predecessor.version, tuple(done), False, sentence, found)


def control_chart(
    history: pd.DataFrame, controls: pd.DataFrame, metrics: Sequence[str], *, limit: float
) -> pd.DataFrame:
    """Where a plate's controls lie on the chart of earlier plates' controls, by one model.

    Controls of one role and clone share a level; their scatter over wells and plates is pooled. A plate is
    one point, the mean over its controls of the deviation from their level.

    Args:
        history: one row a control well of earlier plates: Metadata_Role, Metadata_Clone and the metrics.
        controls: the same of one plate.
        metrics: feature columns, judged as logarithms; values that are not positive are left out.
        limit: standard deviations that the plate may lie away.

    Returns:
        One row a metric: metric, n_controls, n_history, deviation, verdict ("inside", "outside", or "no
        chart" where too few controls are known).
    """
    key = ["Metadata_Role", "Metadata_Clone"]
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        past, now = _logs(history, key, metric), _logs(controls, key, metric)
        levels = past.groupby(key)["value"].agg(["mean", "size"])
        freedom = int(levels["size"].sum() - len(levels))
        known = now.join(levels["mean"], on=key, how="inner")
        row = {"metric": metric, "n_controls": len(known), "n_history": len(past)}
        if freedom < LEAST_FREEDOM or known.empty:
            rows.append(row | {"deviation": float("nan"), "verdict": "no chart"})
            continue
        residuals = past["value"] - past.groupby(key)["value"].transform("mean")
        spread = float(np.sqrt((residuals**2).sum() / freedom))
        away = float((known["value"] - known["mean"]).mean())
        deviation = away / spread if spread > 0 else float(np.sign(away)) * np.inf if away else 0.0
        rows.append(
            row | {"deviation": deviation, "verdict": "outside" if abs(deviation) > limit else "inside"}
        )
    return pd.DataFrame(rows)


def _logs(wells: pd.DataFrame, key: list[str], metric: str) -> pd.DataFrame:
    """Group and logarithm of a metric, one row a well where it is positive."""
    values = wells[metric].to_numpy(dtype=float)
    positive = np.isfinite(values) & (values > 0)
    groups = wells.loc[positive, key].fillna("").astype(str)
    return groups.assign(value=np.log(values[positive]))


def _on_trial(champion: ModelVersion, predecessor: ModelVersion) -> bool:
    """Whether it replaced the predecessor, rather than came back after it."""
    return champion.tags.get("predecessor") == str(predecessor.version)


def _plates(pair: _Pair) -> tuple[list[str], list[str]]:
    """Plates that both measured, and those that only the new champion did, without drifted ones."""
    tables, name = pair.home.tables, pair.organelle.name
    new, old = (
        set(tables.names("versions", name, f"v{one.version}")) for one in (pair.champion, pair.predecessor)
    )
    drifted = drifted_plates(pair.home)
    alone = new - old - drifted
    acquired = {plate: str((pair.home.plates.record(plate) or {}).get("acquired_at", "")) for plate in alone}
    return sorted(new & old - drifted), sorted(alone, key=lambda plate: (acquired[plate], plate))


def _judge(pair: _Pair, plate_id: str, history: Sequence[str]) -> pd.DataFrame | None:
    """Both models' charts of one plate; None where the plate has no control wells."""
    home, organelle, champion = pair.home, pair.organelle, pair.champion
    limit = home.settings.promotion.control_sds
    new = pair.measured(champion, plate_id)
    if new.empty:
        return None
    shadowed = _shadow(home, pair.registry, organelle, plate_id, pair.predecessor, new)
    parts = []
    for version, now in ((champion, new), (pair.predecessor, shadowed)):
        past = [pair.measured(version, plate) for plate in history]
        chart = control_chart(pd.concat([new.iloc[:0], *past]), now, organelle.primary_metrics, limit=limit)
        parts.append(chart.assign(plate=plate_id, version=version.version))
    table = pd.concat(parts, ignore_index=True)[list(_NOTHING.columns)]
    home.tables.write(table, "shadow", organelle.name, f"v{champion.version}", plate_id)
    return table


def _controls(wells: pd.DataFrame, roles: Sequence[str]) -> pd.DataFrame:
    if "Metadata_Role" not in wells:
        return wells.iloc[:0].assign(Metadata_Role="", Metadata_Clone="")
    chosen = wells[wells["Metadata_Role"].isin(list(roles))]
    return chosen if "Metadata_Clone" in chosen else chosen.assign(Metadata_Clone="")


def _shadow(
    home: Home,
    registry: ModelRegistry,
    organelle: Organelle,
    plate_id: str,
    version: ModelVersion,
    controls: pd.DataFrame,
) -> pd.DataFrame:
    """What the old champion measures in a plate's control wells; its images are not kept."""
    plate, model = open_plate(home.plates, plate_id), registry.load(organelle.name, version.version)
    options: dict[str, Any] = {"organelle": organelle.name, "pixel_size_um": plate.pixel_size_um}
    rows = []
    for well in controls["Metadata_Well"]:
        for site, field in plate.wells[well].fields.items():
            image, labels, _ = predict_field(field, model, plate.pixel_size_um)
            keys = {"Metadata_Plate": plate_id, "Metadata_Well": well, "Metadata_Site": site}
            rows.append(measure_field(labels, image, **options).assign(**keys))
    wells = measure_well(pd.concat(rows, ignore_index=True))
    plan = controls[["Metadata_Well", "Metadata_Role", "Metadata_Clone"]]
    return wells.merge(plan, on="Metadata_Well")


def _guilty(table: pd.DataFrame, champion: ModelVersion, predecessor: ModelVersion) -> list[str]:
    """The metrics whose controls left the new champion's chart and not the old one's."""
    verdicts = table.pivot(index="metric", columns="version", values="verdict")
    alone = (verdicts[champion.version] == "outside") & (verdicts[predecessor.version] == "inside")
    return [str(metric) for metric in verdicts.index[alone]]


def _roll_back(
    pair: _Pair, ledger: AlertLedger, plate_id: str, guilty: Sequence[str], table: pd.DataFrame
) -> Trial:
    """Make the old champion champion again, then tell of it; unless somebody chose another one meanwhile."""
    registry, name, number = pair.registry, pair.organelle.name, pair.champion.version
    rows = table[(table["version"] == number) & table["metric"].isin(guilty)]
    said = ", ".join(f"{row.metric} {row.deviation:+.1f} SD" for row in rows.itertuples())
    reason = (
        f"the control wells of {plate_id} left version {number}'s chart ({said}) but not version "
        f"{pair.predecessor.version}'s"
    )
    registry.annotate(name, number, **{LEFT_CHART: plate_id})
    with registry.exclusive(name):
        now = registry.champion(name)
        if now is None or now.version != number:
            return Trial(0, 0, (), False, f"version {number} is not the champion any more", table)
        back = registry.rollback(name, reason=reason)
    _finish_rollback(registry, ledger, back)
    done = registry.version(name, number).tags[SHADOWED].split()
    return Trial(number, back.version, tuple(done), True, f"rolled back: {reason}", table)


def _finish_rollback(registry: ModelRegistry, ledger: AlertLedger, back: ModelVersion) -> None:
    """Tell, once, of the trial after which a champion came back, and mark its plate as judged."""
    try:
        left = registry.version(back.organelle, back.tags[RETURNED_FROM])
    except (KeyError, InputError):  # it did not come back, or what it replaces was deleted
        return
    plate_id, done = left.tags.get(LEFT_CHART), left.tags.get(SHADOWED, "").split()
    if plate_id is None or plate_id in done or not left.was_rolled_back:
        return
    ledger.write(
        Alert(
            id=alert_id("promotion", left.organelle, left.version, "rolled back", plate_id),
            kind="promotion",
            title=f"{left.organelle} version {left.version} was rolled back to {back.version}",
            body=f"Rolled back: {left.tags['rollback_reason']}.",
            severity="error",
            plate=plate_id,
            organelle=left.organelle,
            data={"version": left.version, "promoted": False, "incident": "", "rolled_back": True},
        )
    )
    registry.annotate(left.organelle, left.version, **{SHADOWED: " ".join([*done, plate_id])})
