"""What a champion's embeddings look like when nothing has drifted, and how harmful a distance is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellabel.drift import HarmModel, OnlineMMD, expected_run_time, leave_plate_out_margin
from cellabel.errors import InputError
from cellabel.evaluation import CLEAN, well_errors
from cellabel.loop.embeddings import embedding_matrix, well_embeddings
from cellabel.loop.encoder import FrozenEncoder, embed_plate, open_encoder, train_once
from cellabel.loop.held_out import (
    HeldOut,
    harm_conditions,
    meant_for,
    of_another_implementation,
    read_held_out,
)
from cellabel.loop.promotion import kind_withstood
from cellabel.loop.streams import (
    ACQUISITION,
    ENCODER,
    ENCODER_VERSION,
    FROZEN,
    Epoch,
    epoch_store,
    followed_champion,
    instrument_slug,
    open_epoch,
    save_epoch,
)
from cellabel.organelles import Organelle
from cellabel.plates import open_plate
from cellabel.registry import ModelRegistry, ModelVersion
from cellabel.stores import Home, write_json

__all__ = ["FrozenStreams", "follow_champion", "freeze_encoder"]

PROVISIONAL_BELOW = 19
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class FrozenStreams:
    """The frozen encoder and the streams that no retraining changes.

    Attributes:
        encoder: itself.
        summary: one row a stream and instrument, as `follow_champion` gives it.
    """

    encoder: FrozenEncoder
    summary: pd.DataFrame


def freeze_encoder(home: Home, *, progress: Callable[[str], None] | None = None) -> FrozenStreams:
    """Train the frozen encoder on the labelled plates, once, and anchor each instrument's frozen streams.

    Raises:
        InputError: no accepted plate is labelled.
    """
    encoder = train_once(home, progress=progress)
    by_instrument: dict[str, list[str]] = {}
    for plate in encoder.plates:
        record = home.plates.record(plate) or {}
        if record.get("status") == "accepted":
            by_instrument.setdefault(instrument_slug(str(record.get("instrument", ""))), []).append(plate)
    for slug, plates in by_instrument.items():
        _anchor_frozen_streams(home, slug, plates, encoder)
    found = [(slug, open_epoch(home, slug, stream)) for slug in by_instrument for stream in FROZEN]
    return FrozenStreams(encoder, pd.DataFrame([_describe(slug, epoch) for slug, epoch in found if epoch]))


def follow_champion(home: Home, registry: ModelRegistry, organelle: Organelle) -> pd.DataFrame:
    """Start a new epoch of the organelle's drift streams, if its champion is another one than they follow.

    The reference is what the new champion makes of the labelled plates, clean, and in the corrupted
    conditions that it was promoted for, so that a window wholly inside an accepted condition does not alarm
    again. The frozen streams get their anchors once and keep them. A champion that came without embeddings
    of held-out wells is followed all the same; its streams say "not calibrated" and why.

    Returns:
        One row a stream: instrument, stream, epoch, reference wells and plates, expected run time, verdicts.
    """
    champion = registry.champion(organelle.name)
    if champion is None:
        return pd.DataFrame()
    followed = followed_champion(home, organelle.name)
    turn = followed.turn + (followed.version != champion.version)
    name = f"{organelle.name}-v{champion.version}-{turn}"
    try:
        held_out = read_held_out(registry.folder(organelle.name, champion.version))
        epochs = _epochs(home, organelle, champion, held_out, name)
    except FileNotFoundError:  # promoted by a person; its predictions are of use, its drift is not judged
        epochs = {slug: _without_reference(organelle, champion, name) for slug in _instruments(home)}
    summary = []
    for slug, epoch in epochs.items():
        save_epoch(home, slug, epoch)
        said = f"epoch {epoch.epoch}, " + (epoch.detector.fingerprint if epoch.detector else epoch.reason)
        registry.annotate(organelle.name, champion.version, **{f"detector.{slug}": said})
        summary.append(_describe(slug, epoch))
    registry.refresh_card(organelle.name, champion.version)
    write_json(
        home.detectors / "followed" / f"{organelle.name}.json",
        {"version": champion.version, "turn": turn, "since": datetime.now(UTC).isoformat(timespec="seconds")},
    )
    return pd.DataFrame(summary)


def _epochs(
    home: Home, organelle: Organelle, champion: ModelVersion, held_out: HeldOut, name: str
) -> dict[str, Epoch]:
    """Instrument → the champion's epoch on it, by what was measured when it was trained."""
    conditions = meant_for(kind_withstood(champion), held_out.embeddings["condition"].unique())
    rows = held_out.embeddings[held_out.embeddings["condition"].isin([CLEAN, *conditions])]
    wells = well_embeddings(rows, ["Metadata_Instrument", "condition", "Metadata_Plate", "Metadata_Well"])
    epochs = {}
    for instrument, reference in wells.groupby("Metadata_Instrument"):
        slug = instrument_slug(str(instrument))
        _anchor_frozen_streams(home, slug, sorted(reference["Metadata_Plate"].unique()), open_encoder(home))
        epochs[slug] = _calibrate(
            home,
            organelle.name,
            name,
            reference,
            model_version=champion.version,
            harm=_harm(held_out, organelle),
        )
    return epochs


def _without_reference(organelle: Organelle, champion: ModelVersion, name: str) -> Epoch:
    """The epoch of a champion that came without measurements of held-out wells."""
    return Epoch(
        stream=organelle.name,
        epoch=name,
        detector=None,
        reason=f"version {champion.version} of {organelle.name} came without embeddings of held-out wells, "
        "so nothing tells what is normal to it: train a version on the labelled plates",
        provisional=True,
        model_version=champion.version,
        plates=(),
        centre=np.zeros(0),
        spread=np.ones(0),
        harm=None,
    )


def _instruments(home: Home) -> list[str]:
    """The instruments that have drift streams."""
    root = epoch_store(home).root
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.exists() else []


def _anchor_frozen_streams(
    home: Home, slug: str, plates: Sequence[str], encoder: FrozenEncoder | None
) -> None:
    """The references of the frozen streams: the first labelled plates of the instrument, never replaced."""
    known = [plate for plate in plates if home.tables.has(ACQUISITION, plate)]
    if known and epoch_store(home).record(f"{slug}/{ACQUISITION}") is None:
        tables = [home.tables.read(ACQUISITION, plate) for plate in known]
        _anchor(home, slug, ACQUISITION, tables, 0)
    if known and encoder is not None and epoch_store(home).record(f"{slug}/{ENCODER}") is None:
        tables = [embed_plate(home, open_plate(home.plates, plate), encoder) for plate in known]
        _anchor(home, slug, ENCODER, tables, ENCODER_VERSION)


def _anchor(home: Home, slug: str, stream: str, tables: Sequence[pd.DataFrame], version: int) -> None:
    reference = pd.concat(tables, ignore_index=True)
    epoch = _calibrate(home, stream, f"{stream}-anchor", reference, model_version=version, harm=None)
    save_epoch(home, slug, epoch)


def _calibrate(
    home: Home,
    stream: str,
    epoch: str,
    reference: pd.DataFrame,
    *,
    model_version: int,
    harm: tuple[NDArray, NDArray, NDArray] | None,
) -> Epoch:
    """A detector on the reference, or the reason why there is none."""
    settings = home.settings
    rows = embedding_matrix(reference)
    centre, spread = np.median(rows, axis=0), rows.std(axis=0)
    spread = np.maximum(spread, LEAST_SPREAD * max(float(spread.max()), 1e-12))
    plates = tuple(sorted(reference["Metadata_Plate"].unique()))
    wells_a_plate = int(np.median(reference.groupby("Metadata_Plate")["Metadata_Well"].nunique()))
    streams = len(settings.organelles) + len(FROZEN)
    run_time = streams * expected_run_time(wells_a_plate, settings.drift.false_alarms_per_plate)
    standardised, groups = (rows - centre) / spread, None
    if len(plates) >= PROVISIONAL_BELOW:
        groups = (reference["Metadata_Plate"] + reference.get("condition", "")).tolist()
    fitted = OnlineMMD(run_time, window_size=settings.drift.window, seed=settings.models.seed)
    detector: OnlineMMD | None = fitted
    reason, margin = "", 1.0
    if len(rows) < settings.drift.min_reference_wells:
        detector = None
        reason = f"{len(rows)} reference wells are too few (at least {settings.drift.min_reference_wells})"
    else:
        try:
            fitted.fit(standardised, groups=groups, model=f"{stream} {model_version}")
        except InputError as error:
            detector, reason = None, str(error)
    if detector is not None and groups is None:
        margin = leave_plate_out_margin(
            standardised,
            reference["Metadata_Plate"].tolist(),
            expected_run_time=run_time,
            window_size=settings.drift.window,
            seed=settings.models.seed,
        )
    standard = Epoch(
        stream=stream,
        epoch=epoch,
        detector=detector,
        reason=reason,
        provisional=len(plates) < PROVISIONAL_BELOW,
        model_version=model_version,
        plates=plates,
        centre=centre,
        spread=spread,
        harm=None,
        margin=margin,
    )
    if harm is None or detector is None:
        return standard
    clean, corrupted, losses = harm
    near, far = standard.standardise(clean), standard.standardise(corrupted)
    try:
        model = HarmModel.fit(near, far, losses, delta=settings.drift.harm_limit)
    except InputError:  # too few wells: harm stays unknown, and drift asks for labels
        return standard
    return replace(standard, harm=model)


def _harm(held_out: HeldOut, organelle: Organelle) -> tuple[NDArray, NDArray, NDArray]:
    """Clean reference rows, corrupted held-out rows, and how much corruption changed each of these."""
    embeddings = held_out.embeddings
    by = ["condition", "Metadata_Plate", "Metadata_Well"]
    clean = well_embeddings(embeddings[embeddings["condition"] == CLEAN], by)
    calibrating = {CLEAN, *harm_conditions()}
    conditions = [one for one in held_out.conditions if one in calibrating or of_another_implementation(one)]
    change = pd.concat(
        [_change(held_out, organelle, name).assign(condition=name) for name in conditions],
        ignore_index=True,
    )
    paired = well_embeddings(embeddings, by).merge(change, on=by)
    return (
        embedding_matrix(clean),
        embedding_matrix(paired.drop(columns="loss")),
        paired["loss"].to_numpy(dtype=float),
    )


def _change(held_out: HeldOut, organelle: Organelle, condition: str) -> pd.DataFrame:
    """By well: mean |log| change of the primary metrics under a condition, same model and well."""
    errors = well_errors(
        held_out.wells("predicted"), held_out.wells("predicted", condition), organelle.primary_metrics
    )
    by_well = errors["log_error"].abs().groupby([errors["plate"], errors["well"]]).mean()
    return by_well.rename("loss").rename_axis(["Metadata_Plate", "Metadata_Well"]).reset_index()


def _describe(slug: str, epoch: Epoch) -> dict[str, object]:
    return {
        "instrument": slug,
        "stream": epoch.stream,
        "epoch": epoch.epoch,
        "reference_plates": len(epoch.plates),
        "margin": round(epoch.margin, 2),
        "verdicts": epoch.reason or ("provisional" if epoch.provisional else "full"),
        "expected_run_time": epoch.detector.expected_run_time if epoch.detector else float("nan"),
    }
