"""What an incident looks like: the known corruption that explains it best, told to whoever was told of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellabel.alerts import Alert, AlertLedger, alert_id
from cellabel.corruptions import (
    DESTROYED_SHARE,
    SEVERITIES,
    clipped_share,
    corrupt,
    depth_of_severity,
    equivalent_radius_px,
    interference_defocus,
    pupil_defocus,
    severity_of_radius,
)
from cellabel.drift import Diagnosis, diagnose
from cellabel.drift.incidents import Incident
from cellabel.errors import InputError
from cellabel.loop.embeddings import embedding_matrix, field_embedding
from cellabel.loop.held_out import full_scale
from cellabel.loop.incidents import drift_link, read_incident, record_diagnosis
from cellabel.loop.streams import ACQUISITION, ENCODER, Epoch, open_epoch, stream_table
from cellabel.loop.watch import stored_verdict
from cellabel.networks import OrganelleModel
from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM
from cellabel.plates import Field, open_plate
from cellabel.plates.quality import acquisition_features
from cellabel.registry import ModelRegistry
from cellabel.stores import Home

if TYPE_CHECKING:
    from cellabel.reports import Thumbnail

__all__ = ["Diagnosed", "diagnose_incident"]

MOST_THREADS = 4
LEAST_WELLS = 4
"""Wells that are looked at, and that make a group on the map."""

THUMBNAILS, THUMBNAIL_PX = 3, 256
"""Wells of each kind that are shown beside the map, and pixels of each."""

FARTHEST, NEAREST, BESIDE = (
    "farthest from the reference",
    "nearest to the reference",
    "reference wells next to these",
)

NOT_EXPOSURE = (
    "looks like none of the known causes: the level has changed as by exposure, but so has what exposure "
    "leaves alone"
)
NOT_DEFOCUS = (
    "looks like none of the known causes: a network sees a blur, but the sharpness and level of the images "
    "have not changed as by one"
)
EXPOSURE_LEAVES = 0.08
"""Exposure leaves less than this share of the features' shift unexplained: it moves the level, which the
features measure itself, where death, vibration or a closed condenser leave a tenth and more."""
DEFOCUS_LEAVES, DEFOCUS_AHEAD = 0.35, 0.45
"""Defocus leaves less than the first of these shares of the features' shift, and explains more of it than
exposure does by more than the second: death and vibration move the level too, dust is explained only in part.
"""
WITNESS_FIELDS = 24
"""Reference fields for the features, at least: they cost little, and few tell defocus from dust badly."""
ORIENTATIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "a camera mirrored left to right": np.fliplr,
    "a camera turned by 90°": np.rot90,
    "a camera turned by 180°": partial(np.rot90, k=2),
}
"""What a camera that was mounted anew does: no training answers it, a person does."""
WAVELENGTH_UM = 0.546
DEPTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Defocus that is tried, in depths of field λ/NA²: physics' own unit, whatever the objective."""
SIDES = {"one side": 1.0, "other side": -1.0}
"""Of focus. Which one is above depends on the prism, so the answer does not say."""


@dataclass(frozen=True)
class Diagnosed:
    """A diagnosis, and where it is shown.

    Attributes:
        diagnosis: of the incident.
        sentence: for a person, with the wells.
        organelle: whose embeddings were looked at.
        plate: the drifted plate that was looked at.
        figure: the statistic over the plate's wells, PNG.
        map: the plate's wells among those of the reference plates, PNG; None where these have no embeddings.
    """

    diagnosis: Diagnosis
    sentence: str
    organelle: str
    plate: str
    figure: bytes
    map: bytes | None = None


@dataclass(frozen=True)
class _Look:
    """A look at the drifted plate: the rows from well `first` on were compared, those of `epoch` are kept."""

    epoch: Epoch
    wells: list[str]
    rows: NDArray[np.float64]
    first: int
    diagnosis: Diagnosis


@dataclass(frozen=True)
class _Eye:
    """A stream that looks at the plate.

    Attributes:
        epoch: under way.
        see: makes of a raw image (H, W) what the stream's table holds of a well.
        defocus_alone: it is not asked about exposure.
    """

    epoch: Epoch
    see: Callable[[NDArray], NDArray]
    defocus_alone: bool = False

    def scale(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardised rows as they are compared; large deviations of features count by their logarithm.

        What moves a feature by 60 standard deviations explains a plate that has moved by 80, though it misses
        it by 20.
        """
        return np.arcsinh(rows) if self.epoch.stream == ACQUISITION else rows


def diagnose_incident(
    home: Home, registry: ModelRegistry, ledger: AlertLedger, incident_id: str
) -> Diagnosed:
    """Compare the drifted wells with reference fields under every known corruption, and tell the result.

    The most harmed organelle is asked first, then the others that drifted, then the acquisition features,
    until one knows the cause with the confidence that the settings ask for: what the input's normalisation
    hides from a network, the features see. One witness is not enough: a blur that a network sees must show in
    the features too, and an exposure that they see must not show in the frozen encoder.

    Raises:
        InputError: no such incident, or no calibrated stream that could look.
    """
    from cellabel.reports import drift_timeline_figure

    incident = read_incident(home, incident_id)
    plate = incident.plates[-1]
    looks: list[_Look] = []
    features = _features_eye(home, incident)
    witness = None if features is None else _look(home, features, plate)
    for eye in _eyes(home, registry, incident, defocus_alone=features is not None):
        looks.append(_cross_examined(_look(home, eye, plate), witness))
        if _is_known(looks[-1].diagnosis, home.settings.drift.min_confidence):
            break
    else:
        if witness is not None:
            looks.append(_as_deep_as_networks_say(witness, looks))
    if not looks:
        raise InputError(
            f"No stream on {incident.instrument} is calibrated and has seen {plate}: train and promote a "
            "model first."
        )
    best = looks[-1] if _is_known(looks[-1].diagnosis, home.settings.drift.min_confidence) else looks[0]
    diagnosis = best.diagnosis
    record_diagnosis(home, incident, diagnosis)
    kind_of_rows = "features" if best.epoch.stream == ACQUISITION else "embeddings"
    sentence = (
        f"{plate} {diagnosis.sentence}{_depth(home, plate, diagnosis)}, from well {best.wells[best.first]} "
        f"on, by its {best.epoch.stream} {kind_of_rows} (confidence {diagnosis.confidence:.0%})."
    )
    _tell(home, ledger, incident, best.epoch, plate, sentence, diagnosis)
    detector = best.epoch.detector
    steps: list[Any] = [] if detector is None else detector.update_many(best.rows)
    limits = [best.epoch.margin * step.threshold for step in steps]
    figure = drift_timeline_figure([step.statistic for step in steps], limits, best.wells)
    return Diagnosed(diagnosis, sentence, best.epoch.stream, plate, figure, _map(home, best, plate))


def _map(home: Home, look: _Look, plate: str) -> bytes | None:
    """The plate's wells among those of the reference plates, groups of nearly none but its own told apart."""
    from cellabel.projections import cluster, new_groups, project
    from cellabel.reports import embedding_map_figure

    epoch = look.epoch
    tables = [stream_table(epoch, one) for one in epoch.plates]
    known = [home.tables.read(*parts) for parts in tables if home.tables.has(*parts)]
    if not known:
        return None
    reference = epoch.standardise(np.concatenate([embedding_matrix(table) for table in known]))
    is_new = np.arange(len(reference) + len(look.rows)) >= len(reference)
    try:
        points = project(np.concatenate([reference, look.rows]), "pacmap", seed=home.settings.models.seed)
        groups = cluster(points, "hdbscan", smallest=LEAST_WELLS)
    except InputError:  # too few wells for neighbourhoods; the diagnosis stands without
        return None
    apart = is_new & np.isin(groups, new_groups(groups, is_new))
    told = f"{plate}, new group ({apart.sum()} wells)"  # wells alike lie on top of each other
    labels = np.where(apart, told, np.where(is_new, plate, "reference"))
    title = f"{plate}, {epoch.stream}: {apart.sum()} of {is_new.sum()} wells in a group of their own"
    wells = pd.concat(known, ignore_index=True)[["Metadata_Plate", "Metadata_Well"]]
    images = _thumbnails(home, look, plate, reference, list(wells.itertuples(index=False, name=None)))
    return embedding_map_figure(points, labels.tolist(), title=title, method="PaCMAP", thumbnails=images)


def _thumbnails(
    home: Home, look: _Look, plate: str, reference: NDArray[np.float64], wells: list[tuple[str, str]]
) -> list[Thumbnail]:
    """The plate's wells farthest from the reference and nearest to it, and reference wells next to these.

    Counted are distances of the embedding to the nearest reference well: those on the map mean little.

    Args:
        home: the stores.
        look: at the plate; its rows come after the reference's on the map.
        plate: its id.
        reference: (n, d) standardised rows.
        wells: (n,) plate and well of the reference's rows.
    """
    distances = cdist(look.rows, reference)
    nearest = distances.min(axis=1)
    order = np.argsort(nearest, kind="stable").tolist()
    shown = min(THUMBNAILS, -(-len(order) // 2))
    far, near = order[::-1][:shown], order[: min(shown, len(order) - shown)]
    beside = list(dict.fromkeys(distances[near or far].argmin(axis=1).tolist()))
    found = [
        *(_thumbnail(home, len(wells) + one, plate, look.wells[one], f"{plate}: {FARTHEST}") for one in far),
        *(_thumbnail(home, len(wells) + one, plate, look.wells[one], f"{plate}: {NEAREST}") for one in near),
        *(_thumbnail(home, one, wells[one][0], wells[one][1], BESIDE) for one in beside),
    ]
    return [one for one in found if one is not None]


def _thumbnail(home: Home, point: int, plate: str, well: str, heading: str) -> Thumbnail | None:
    """The middle of a well's first field, where a blur is seen; None where its image is gone since."""
    from cellabel.reports import Thumbnail

    try:
        imaged = open_plate(home.plates, plate)
        image = next(iter(imaged.wells[well].fields.values())).image("transmitted")
    except (InputError, KeyError, StopIteration):
        return None
    return Thumbnail(point, _middle(image), f"{plate}/{well}", heading, imaged.pixel_size_um)


def _middle(image: NDArray) -> NDArray:
    """The middle of an image (H, W), at most THUMBNAIL_PX wide and high."""
    top, left = (max(0, (size - THUMBNAIL_PX) // 2) for size in image.shape)
    return image[top : top + THUMBNAIL_PX, left : left + THUMBNAIL_PX]


def _is_known(diagnosis: Diagnosis, confidence: float) -> bool:
    return diagnosis.kind is not None and diagnosis.confidence >= confidence


def _look(home: Home, eye: _Eye, plate: str) -> _Look:
    epoch = eye.epoch
    table = home.tables.read(*stream_table(epoch, plate)).set_index("Metadata_Well")
    order = home.tables.read(ACQUISITION, plate)["Metadata_Well"].tolist()
    wells = [well for well in order if well in table.index]
    rows = epoch.standardise(embedding_matrix(table.loc[wells].reset_index()))
    first = _first_well(home, epoch.stream, plate, wells)

    def embed(images: Sequence[NDArray]) -> NDArray[np.float64]:
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            return eye.scale(epoch.standardise(np.stack(list(pool.map(eye.see, images)))))

    fields = _reference_fields(home, epoch, WITNESS_FIELDS if epoch.stream == ACQUISITION else 0)
    images = [field.image("transmitted") for field in fields]
    pixel = _pixel_size_um(home, fields[0].plate_id)
    kinds = _known_corruptions(home, images, pixel, defocus_alone=eye.defocus_alone)
    new, seed = eye.scale(rows[first:]), home.settings.models.seed
    diagnosis = diagnose(embed, images, new, kinds=kinds, alternatives=ORIENTATIONS, seed=seed)
    if epoch.stream == ACQUISITION and diagnosis.kind == "exposure":
        diagnosis = _believed_exposure(diagnosis, encoder_moved=_moved(home, plate))
    return _Look(epoch, wells, rows, first, diagnosis)


def _believed_exposure(diagnosis: Diagnosis, *, encoder_moved: bool) -> Diagnosis:
    """What the features say of exposure, unless too much is left or the encoder has seen a change as well."""
    if encoder_moved:
        return _unknown(diagnosis, NOT_EXPOSURE)
    if diagnosis.unexplained > EXPOSURE_LEAVES:
        told = f"exposure comes closest and leaves {diagnosis.unexplained:.0%} of the shift unexplained"
        return _unknown(diagnosis, f"looks like none of the known causes: {told}")
    return diagnosis


def _cross_examined(look: _Look, witness: _Look | None) -> _Look:
    """A network's look; its defocus is not believed where the acquisition features speak against it."""
    if witness is None or look.diagnosis.kind != "defocus":
        return look
    left = witness.diagnosis.left
    defocus, exposure = left.get("defocus", 1.0), left.get("exposure", 1.0)
    if defocus < DEFOCUS_LEAVES and exposure - defocus > DEFOCUS_AHEAD:
        return look
    return replace(look, diagnosis=_unknown(look.diagnosis, NOT_DEFOCUS))


def _as_deep_as_networks_say(witness: _Look, networks: Sequence[_Look]) -> _Look:
    """The features' look, with a defocus as severe as the network that it explains best takes it to be.

    Features tell a defocus from all else, but a little of it moves the sharpness as much as a lot.
    """
    told = [look.diagnosis for look in networks if "defocus" in look.diagnosis.nearest]
    if witness.diagnosis.kind != "defocus" or not told:
        return witness
    best = min(told, key=lambda one: one.left["defocus"])
    return replace(witness, diagnosis=witness.diagnosis.with_severity(best.nearest["defocus"]))


def _unknown(diagnosis: Diagnosis, sentence: str) -> Diagnosis:
    return replace(diagnosis, kind=None, severity=None, corruption=None, sentence=sentence)


def _moved(home: Home, plate: str) -> bool:
    """Whether the encoder sees a change too: its input's normalisation hides exposure, so it is none."""
    said = ((stored_verdict(home, plate) or {}).get("streams") or {}).get(ENCODER) or {}
    return said.get("status") == "drift"


def _known_corruptions(
    home: Home, images: Sequence[NDArray], pixel_size_um: float, *, defocus_alone: bool
) -> dict[str, dict[float, Callable[[NDArray], NDArray]]]:
    """Table 5 where it leaves something of the images, and defocus by the optics in the table's severities.

    DIC out of focus is no blur: contrast rises on one side of focus, and what a blur explains of it is the
    wrong depth. So there the optics of interference contrast, on both sides, stand for table 5's blur.
    """
    from cellabel.loop.training import training_config

    training = training_config(home.settings, ("", ()))
    dic = training.modality == "dic"
    kinds = (() if dic else ("defocus",)) + (() if defocus_alone else ("contrast", "brightness"))
    # A kind of which nothing is left readable is still asked for: exposure is then both of its kinds.
    found: dict[str, dict[float, Callable[[NDArray], NDArray]]] = {kind: {} for kind in kinds}
    for kind in kinds:
        for column in (one for one in SEVERITIES[kind] if one):
            shares = [clipped_share(i, kind, column, full_scale=full_scale(i)) for i in images]
            if np.mean(shares) <= DESTROYED_SHARE:
                found[kind][column] = partial(_corrupted, kind, column)
    aperture = home.settings.promotion.numerical_aperture
    optics: dict[str, Any] = {"pixel_size_um": pixel_size_um, "numerical_aperture": aperture}
    out_of_focus: Callable[..., NDArray] = (
        partial(interference_defocus, shear_axis_degrees=training.shear_axis_degrees, **optics)
        if dic
        else partial(pupil_defocus, **optics)
    )
    for side, sign in (SIDES if dic else {"pupil": 1.0}).items():
        for depth in (one * WAVELENGTH_UM / aperture**2 for one in DEPTHS):
            severity = severity_of_radius(equivalent_radius_px(depth, **optics))
            made = found.setdefault(f"defocus ({side})", {})
            made[severity] = partial(out_of_focus, defocus_um=sign * depth)
    return found


def _pixel_size_um(home: Home, plate: str) -> float:
    return open_plate(home.plates, plate).pixel_size_um or REFERENCE_PIXEL_SIZE_UM


def _depth(home: Home, plate: str, diagnosis: Diagnosis) -> str:
    """How far from focus a defocus is, in the unit of whoever turns the knob."""
    if diagnosis.corruption != "defocus" or diagnosis.severity is None:
        return ""
    aperture, pixel = home.settings.promotion.numerical_aperture, _pixel_size_um(home, plate)
    depth = depth_of_severity(diagnosis.severity, pixel_size_um=pixel, numerical_aperture=aperture)
    return f", about {depth:.0f} µm from focus"


def _corrupted(kind: str, severity: int, image: NDArray) -> NDArray:
    return corrupt(image, kind, severity, full_scale=full_scale(image))


def _eyes(home: Home, registry: ModelRegistry, incident: Incident, *, defocus_alone: bool) -> Iterator[_Eye]:
    """The champions of the organelles that drifted.

    Where there are acquisition features, they alone are asked about exposure: the normalisation of a
    network's input hides all of it but the clipping, and images clipped hard come near to whatever else has
    changed.
    """
    for epoch in _epochs(home, incident):
        if home.tables.has(*stream_table(epoch, incident.plates[-1])):
            model = registry.load(epoch.stream, epoch.model_version)
            see = partial(_embed, model, _pixel_size_um(home, epoch.plates[0]))
            yield _Eye(epoch, see, defocus_alone)


def _features_eye(home: Home, incident: Incident) -> _Eye | None:
    acquired = open_epoch(home, incident.instrument, ACQUISITION)
    return None if acquired is None or acquired.detector is None else _Eye(acquired, _features)


def _features(image: NDArray) -> NDArray[np.float64]:
    """The acquisition features of an image, in the order of their names as tables give them."""
    values = acquisition_features(image)
    return np.array([values[name] for name in sorted(values)])


def _epochs(home: Home, incident: Incident) -> list[Epoch]:
    """Calibrated epochs of the organelles that drifted, the most harmed first; else of any organelle."""
    drifted = [name for name in incident.streams if name in home.settings.organelles]
    names = dict.fromkeys([str(incident.most_harmed), *drifted] if drifted else home.settings.organelles)
    return [
        epoch
        for name in names
        if name in home.settings.organelles
        and (epoch := open_epoch(home, incident.instrument, name)) is not None
        and epoch.detector is not None
    ]


def _first_well(home: Home, stream: str, plate: str, wells: list[str]) -> int:
    """Where the drift is taken to have begun on a plate, leaving at least LEAST_WELLS to look at."""
    said = ((stored_verdict(home, plate) or {}).get("streams") or {}).get(stream) or {}
    began_on, _, well = str(said.get("change_id") or "").partition("/")
    place = wells.index(well) if began_on == plate and well in wells else 0
    return max(0, min(place, len(wells) - LEAST_WELLS))


def _reference_fields(home: Home, epoch: Epoch, least: int) -> list[Field]:
    """As many fields of the reference plates as the settings ask for, one a well, spread evenly.

    Args:
        home: the stores.
        epoch: whose reference it is.
        least: taken even where the settings ask for fewer.
    """
    fields = [
        next(iter(well.fields.values()))
        for plate_id in epoch.plates
        for well in open_plate(home.plates, plate_id).wells.values()
    ]
    chosen = np.linspace(
        0, len(fields) - 1, min(max(home.settings.drift.diagnosis_fields, least), len(fields))
    ).round()
    return [fields[int(place)] for place in chosen]


def _embed(model: OrganelleModel, pixel_size_um: float, image: NDArray) -> NDArray[np.float32]:
    from cellabel.prediction import predict_stain

    prediction = predict_stain(model, image, pixel_size_um=pixel_size_um)
    return field_embedding(prediction.embedding, prediction.foreground_embedding)


def _tell(
    home: Home,
    ledger: AlertLedger,
    incident: Incident,
    epoch: Epoch,
    plate: str,
    sentence: str,
    diagnosis: Diagnosis,
) -> None:
    turn = incident.actions.count("diagnose")
    ledger.write(
        Alert(
            id=alert_id("diagnosis", incident.id, turn),
            kind="diagnosis",
            title=f"The drift on {incident.instrument} {diagnosis.sentence}",
            body=sentence,
            severity="warning",
            plate=plate,
            organelle=epoch.stream,
            link=drift_link(home, epoch.stream, plate),
            data={"incident": incident.id, **diagnosis.to_dict()},
        )
    )
