"""The registry itself."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellabel.errors import InputError
from cellabel.registry import _files
from cellabel.registry._catalogue import Catalogue, as_number
from cellabel.registry._connection import Connection, local_path
from cellabel.registry._logger import experiment
from cellabel.registry._transfer import TrainedFolder, download, upload
from cellabel.registry._versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS_CHAMPION,
    ModelVersion,
    model_name,
)

if TYPE_CHECKING:
    from cellabel.prediction import OrganelleModel

_ALIASES = (CHAMPION, CHALLENGER, PREVIOUS_CHAMPION)


class ModelRegistry:
    """The versions of every organelle's model, and which of them predicts.

    Each organelle has one registered model, `cellabel-<organelle>`. The alias *champion* is the version that
    predicts, *challenger* the newest candidate, *previous_champion* what a rollback returns to. Changes are
    serialised by a lock file beside a SQLite database; MLflow has no compare-and-set, so with a server on
    another machine promote from one place only, or give `expected_champion`.

    Args:
        uri: an MLflow database (`sqlite:////path/mlflow.db`) or server; None means the settings' one. The
            artefacts of a local database lie in `mlartifacts` beside it.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._connection = Connection(uri)
        self._catalogue = Catalogue(self._connection)

    def __repr__(self) -> str:
        return f"ModelRegistry({self._connection.uri!r})"

    def register(
        self,
        result_or_folder: Any,
        organelle: str,
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        extra_files: Sequence[str | os.PathLike[str]] = (),
        run_id: str | None = None,
    ) -> ModelVersion:
        """Log a trained model, register it and make it the challenger.

        The same files registered twice (a run repeated after a crash) are one version. A process that dies on
        the way leaves an unfinished run but no version.

        Args:
            result_or_folder: a TrainingResult, or the folder that it wrote.
            organelle: the recipe that it predicts.
            metrics: name → value, beside those of the training.
            tags: lineage (dagster_run_id, retraining_cause …), beside dataset_version and code_version.
            extra_files: figures and reports, kept with the run.
            run_id: an MLflow run to log into (see `training_logger`); None starts one.

        Raises:
            InputError: the folder is incomplete, or was trained for another organelle.
        """
        name = model_name(organelle)
        trained = TrainedFolder.read(result_or_folder, organelle, metrics or {}, tags or {}, extra_files)
        if (known := self._same_files(organelle, trained.checksums)) is None:
            experiment_id = experiment(self._connection, name)
            logged = upload(self._connection.client, experiment_id, trained, run_id)
        with self._connection.lock:
            known = known or self._same_files(organelle, trained.checksums)
            if known is None:
                known = self._catalogue.create(name, logged, trained)
            if not {CHAMPION, PREVIOUS_CHAMPION} & set(known.aliases):
                self._catalogue.set_alias(name, CHALLENGER, known.version)
        return self.version(organelle, known.version)

    def champion(self, organelle: str) -> ModelVersion | None:
        """The version that predicts, or None."""
        return self._catalogue.by_alias(model_name(organelle), CHAMPION)

    def challenger(self, organelle: str) -> ModelVersion | None:
        """The version that waits for the gate, or None."""
        return self._catalogue.by_alias(model_name(organelle), CHALLENGER)

    def previous_champion(self, organelle: str) -> ModelVersion | None:
        """The version that a rollback would return to, or None."""
        return self._catalogue.by_alias(model_name(organelle), PREVIOUS_CHAMPION)

    def versions(self, organelle: str) -> list[ModelVersion]:
        """All versions, the newest first."""
        return self._catalogue.all(model_name(organelle))

    def version(self, organelle: str, which: str | int) -> ModelVersion:
        """One version, by its number or by an alias.

        Raises:
            InputError: there is none; the ones that exist are listed.
        """
        name = model_name(organelle)
        aliases = self._catalogue.aliases(name)
        number = aliases.get(str(which)) if str(which) in _ALIASES else as_number(which)
        found = None if number is None else self._catalogue.find(name, number)
        if found is None:
            numbers = ", ".join(str(version.version) for version in self.versions(organelle)) or "none"
            what = f"no {which}" if str(which) in _ALIASES else f"no version {which}"
            raise InputError(
                f"{name} has {what} (versions: {numbers}): choose one of these or register a model first."
            )
        return found

    def promote(
        self, organelle: str, version: int | str, *, reason: str, expected_champion: int | None = None
    ) -> ModelVersion:
        """Make a version the champion; the old champion becomes previous_champion.

        Repeating a promotion changes nothing, so a run that died in its midst may be repeated. Whatever is
        refused leaves the champion as it was.

        Args:
            organelle: the recipe's name.
            version: the version's number, or "challenger".
            reason: one sentence, kept with the version.
            expected_champion: the champion that the decision was made against; None does not ask.

        Raises:
            InputError: the version has vanished, was half logged or is corrupted, or the champion is another
                one by now.
        """
        name = model_name(organelle)
        with self._connection.lock:
            chosen = self.version(organelle, version)
            self._verified_folder(chosen, fresh=True)
            old = self.champion(organelle)
            if old is not None and old.version != chosen.version:
                if expected_champion is not None and old.version != expected_champion:
                    raise InputError(
                        f"The champion of {name} is version {old.version} by now, not {expected_champion}: "
                        "compare the challenger with it again."
                    )
                self._catalogue.tag(name, chosen.version, predecessor=str(old.version))
                self._catalogue.set_alias(name, PREVIOUS_CHAMPION, old.version)
            if old is None or old.version != chosen.version:
                self._catalogue.tag(name, chosen.version, promotion_reason=reason, promoted_at=_now())
                self._catalogue.set_alias(name, CHAMPION, chosen.version)
            if (self._catalogue.aliases(name)).get(CHALLENGER) == chosen.version:
                self._catalogue.delete_alias(name, CHALLENGER)
            return self.version(organelle, chosen.version)

    def rollback(self, organelle: str, *, reason: str) -> ModelVersion:
        """Return to the previous champion; what that one had replaced, if anything, is then the previous one.

        Raises:
            InputError: there is no previous champion, or it cannot be loaded any more.
        """
        name = model_name(organelle)
        with self._connection.lock:
            back = self.previous_champion(organelle)
            bad = self.champion(organelle)
            if back is None or (bad is not None and bad.version == back.version):
                raise InputError(f"{name} has no previous champion to return to: promote a version instead.")
            self._verified_folder(back, fresh=True)
            if bad is not None:
                self._catalogue.tag(name, bad.version, rollback_reason=reason, rolled_back_at=_now())
            self._catalogue.set_alias(name, CHAMPION, back.version)
            before = as_number(back.tags.get("predecessor", ""))
            if before is not None and self._catalogue.find(name, before) is not None:
                self._catalogue.set_alias(name, PREVIOUS_CHAMPION, before)
            else:
                self._catalogue.delete_alias(name, PREVIOUS_CHAMPION)
            return self.version(organelle, back.version)

    def record_verdict(
        self, organelle: str, version: int, *, promoted: bool, reason: str, test_set: str
    ) -> None:
        """Keep what the gate said of a version, refusals too, and count the use of its test set.

        Args:
            organelle: the recipe's name.
            version: the challenger's number.
            promoted: whether the gate let it pass.
            reason: the gate's sentence.
            test_set: the hash of the held-out wells.
        """
        chosen = self.version(organelle, version)
        verdict = {
            "gate_promote": str(promoted).lower(),
            "gate_reason": reason,
            "gate_test_set": test_set,
            "gate_at": _now(),
        }
        self._catalogue.tag(chosen.name, chosen.version, **verdict)

    def test_set_uses(self, organelle: str, test_set: str, *, before: int | None = None) -> int:
        """How many versions this test set has decided about.

        Args:
            organelle: the recipe's name.
            test_set: the hash of the held-out wells.
            before: leave out this version, so that judging it again counts once.
        """
        return sum(
            version.tags.get("gate_test_set") == test_set and version.version != before
            for version in self.versions(organelle)
        )

    def folder(self, organelle: str, which: str | int = CHAMPION) -> Path:
        """The local folder with a version's files, checked against their checksums.

        Files of a server are downloaded once and kept by version and checksum.

        Raises:
            InputError: the version has vanished, was half logged or is corrupted.
        """
        return self._verified_folder(self.version(organelle, which))

    def load(self, organelle: str, which: str | int = CHAMPION) -> OrganelleModel:
        """The model of a version, ready to predict.

        Raises:
            InputError: as `folder`.
        """
        from cellabel.prediction import load_model

        version = self.version(organelle, which)
        return load_model(self._verified_folder(version), name=version.name, version=str(version.version))

    def compare(self, organelle: str, *which: str | int) -> pd.DataFrame:
        """Metrics side by side.

        Args:
            organelle: the recipe's name.
            which: versions or aliases; none given means all versions.

        Returns:
            One row a metric, one column a version (newest first where none were chosen).
        """
        chosen = [self.version(organelle, one) for one in which] or self.versions(organelle)
        table = pd.DataFrame({version.version: dict(version.metrics) for version in chosen}, dtype=float)
        return table.sort_index().rename_axis(index="metric", columns="version")

    def _verified_folder(self, version: ModelVersion, *, fresh: bool = False) -> Path:
        """The folder of a version after all checks; `fresh` looks at the store again, not at a copy."""
        what = f"Version {version.version} of {version.name}"
        status = self._catalogue.model_status(version)
        if status != "READY":
            raise InputError(f"{what} was only half logged (its files are {status}): register it again.")
        expected = _files.expected_checksums(version.tags, what)
        location = self._catalogue.location(version)
        folder = local_path(location)
        if folder is None:
            folder = download(self._connection, location, version, expected, fresh=fresh)
        _files.check_files(folder, expected, what)
        return folder

    def _same_files(self, organelle: str, checksums: Mapping[str, str]) -> ModelVersion | None:
        """The version that was registered with exactly these model files and still has them."""
        tag = _files.checksum_tag(checksums)
        same = (found for found in self.versions(organelle) if found.tags.get(_files.CHECKSUMS) == tag)
        return next((found for found in same if self._is_whole(found)), None)

    def _is_whole(self, version: ModelVersion) -> bool:
        try:
            self._verified_folder(version, fresh=True)
        except InputError:
            return False
        return True


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
