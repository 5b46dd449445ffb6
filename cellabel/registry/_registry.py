"""The registry itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellabel.errors import InputError
from cellabel.registry import _files
from cellabel.registry._card import LONGEST, Report, model_card
from cellabel.registry._catalogue import Catalogue, as_number
from cellabel.registry._connection import Connection, local_path
from cellabel.registry._logger import experiment
from cellabel.registry._succession import Succession, now
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
    serialised by a lock file beside a SQLite database and, behind a server, by a lease in the registry.

    Args:
        uri: an MLflow database (`sqlite:////path/mlflow.db`) or server; None means the settings' one. The
            artefacts of a local database lie in `mlartifacts` beside it.
    """

    def __init__(self, uri: str | None = None) -> None:
        self._connection = Connection(uri)
        self._catalogue = Catalogue(self._connection)
        self._succession = Succession(self._catalogue)

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
        with self.exclusive(organelle):
            known = known or self._same_files(organelle, trained.checksums)
            if known is None:
                known = self._catalogue.create(name, logged, trained)
            if not {CHAMPION, PREVIOUS_CHAMPION} & set(known.aliases):
                self._catalogue.set_alias(name, CHALLENGER, known.version)
        return self.version(organelle, known.version)

    def exclusive(self, organelle: str) -> AbstractContextManager[None]:
        """Nobody else registers, judges, promotes or rolls back the organelle's versions meanwhile.

        Whoever holds it may take it again, so a decision and the promotion that follows from it are one step.

        Raises:
            InputError: somebody else has held it for too long.
        """
        return self._connection.exclusive(model_name(organelle))

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

    def version(self, organelle: str, which: str | int | ModelVersion) -> ModelVersion:
        """One version, by its number or by an alias; a version known from before is looked up again.

        Raises:
            InputError: there is none; the ones that exist are listed. Or a version of another organelle.
        """
        name = model_name(organelle)
        if isinstance(which, ModelVersion):
            if which.name != name:
                raise InputError(
                    f"Version {which.version} of {which.name} is none of {name}: "
                    f"name {which.organelle} as the organelle."
                )
            which = which.version
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
        self,
        organelle: str,
        version: int | str | ModelVersion,
        *,
        reason: str,
        expected_champion: int | None = None,
    ) -> ModelVersion:
        """Make a version the champion; the old champion becomes previous_champion.

        Repeating a promotion changes nothing, so a run that died in its midst may be repeated. Whatever is
        refused leaves the champion as it was.

        Args:
            organelle: the recipe's name.
            version: the version's number, "challenger", or the version as `register` gives it.
            reason: one sentence, kept with the version.
            expected_champion: the champion that the decision was made against, 0 for none; None does not ask.

        Raises:
            InputError: no reason, the version has vanished, was half logged or is corrupted, or the champion
                is another one by now.
        """
        _require_reason(reason, "promotion")
        with self.exclusive(organelle):
            chosen = self.version(organelle, version)
            self._verified_folder(chosen, fresh=True)
            self._succession.promote(chosen, reason=reason, expected_champion=expected_champion)
            return self.version(organelle, chosen.version)

    def rollback(self, organelle: str, *, reason: str) -> ModelVersion:
        """Return to the previous champion; the champion before that one, if any, is then the previous one.

        The version that leaves is returned to by no later rollback, unless it is promoted again.

        Raises:
            InputError: no reason, there is no previous champion, or it cannot be loaded any more.
        """
        _require_reason(reason, "rollback")
        with self.exclusive(organelle):
            self.adopt_champion(organelle)
            back = self.previous_champion(organelle)
            bad = self.champion(organelle)
            if back is None or (bad is not None and bad.version == back.version):
                name = model_name(organelle)
                raise InputError(f"{name} has no previous champion to return to: promote a version instead.")
            self._verified_folder(back, fresh=True)
            self._succession.rollback(back, bad, reason=reason)
            return self.version(organelle, back.version)

    def adopt_champion(self, organelle: str) -> ModelVersion | None:
        """Write down a champion that a person set in MLflow's page; what it replaced is the previous one.

        A challenger that is champion already is no challenger any more.

        Returns:
            The champion, if its alias had been moved elsewhere since this software last looked; else None.
        """
        with self.exclusive(organelle):
            champion = self.champion(organelle)
            if champion is None or not self._succession.adopt(champion):
                return None
            return self.version(organelle, champion.version)

    def missing_champion(self, organelle: str) -> str:
        """Why an organelle that had a champion has none, and what to do; "" where none is missing."""
        return self._succession.missing(model_name(organelle))

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
        verdict = {
            "gate_promote": str(promoted).lower(),
            "gate_reason": reason,
            "gate_test_set": test_set,
            "gate_at": now(),
        }
        with self.exclusive(organelle):
            chosen = self.version(organelle, version)
            self._succession.count_use(chosen.name, test_set, chosen.version)
            self._catalogue.tag(chosen.name, chosen.version, **verdict)

    def annotate(self, organelle: str, version: int, **tags: str) -> None:
        """Write tags of a version, name → value."""
        self._catalogue.tag(model_name(organelle), version, **tags)

    def card(self, organelle: str, which: str | int = CHAMPION, *, longest: int | None = None) -> str:
        """The model card of a version, Markdown, with all that was said of it by now.

        Args:
            organelle: the recipe's name.
            which: a version or an alias.
            longest: characters; tables are cut to fit.

        Raises:
            InputError: as `folder`.
        """
        version = self.version(organelle, which)
        folder = self._verified_folder(version)
        return model_card(
            organelle,
            config=_files.read_json_file(folder / _files.CONFIG),
            metrics=version.metrics,
            tags=version.tags,
            report=Report.read(folder),
            longest=longest,
        )

    def export(
        self,
        organelle: str,
        which: str | int,
        path: str | os.PathLike[str],
        *,
        authors: Sequence[str] = ("cellabel",),
        licence: str = "Apache-2.0",
    ) -> Path:
        """Write a version as a package of the BioImage Model Zoo, for other software.

        Args:
            organelle: the recipe's name.
            which: a version or an alias.
            path: ends in .zip; replaced if it exists.
            authors: who answers for the model.
            licence: of the weights, an SPDX identifier.

        Raises:
            InputError: as `folder`, or the path cannot be written.
        """
        from cellabel.registry._bioimageio import write_package

        version = self.version(organelle, which)
        return write_package(
            self.load(organelle, version.version),
            Path(path),
            name=f"{version.name} version {version.version}",
            description=f"Predicts the {organelle} stain of CHO cells from one transmitted-light image.",
            documentation=self.card(organelle, version.version)
            + "\n## Validation\n\nMeasure objects on predicted and stained images of wells that were not "
            "trained on, and compare counts, areas and intensities well by well, as in the tables above.\n",
            authors=authors,
            licence=licence,
        )

    def refresh_card(self, organelle: str, version: int) -> None:
        """Show the card with all that was said by now on the version's page in MLflow."""
        text = self.card(organelle, version, longest=LONGEST)
        self._catalogue.describe(model_name(organelle), version, text)

    def test_set_uses(self, organelle: str, test_set: str, *, before: int | None = None) -> int:
        """How many versions this test set has decided about.

        Args:
            organelle: the recipe's name.
            test_set: the hash of the held-out wells.
            before: leave out this version, so that judging it again counts once.
        """
        return len(self._succession.uses(model_name(organelle), test_set) - {before})

    def folder(self, organelle: str, which: str | int = CHAMPION) -> Path:
        """The local folder with a version's files, checked against their checksums.

        Files of a server are downloaded once and kept by version and checksum.

        Raises:
            InputError: the version has vanished, was half logged or is corrupted.
        """
        return self._verified_folder(self.version(organelle, which))

    def load(self, organelle: str, version: str | int | ModelVersion = CHAMPION) -> OrganelleModel:
        """The model of a version (its number, an alias, or as `register` and `champion` give it).

        Raises:
            InputError: as `folder`.
        """
        from cellabel.prediction import load_model

        chosen = self.version(organelle, version)
        return load_model(self._verified_folder(chosen), name=chosen.name, version=str(chosen.version))

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
        same = (found for found in self.versions(organelle) if _files.trained_files(found.tags) == checksums)
        return next((found for found in same if self._is_whole(found)), None)

    def _is_whole(self, version: ModelVersion) -> bool:
        try:
            self._verified_folder(version, fresh=True)
        except InputError:
            return False
        return True


def _require_reason(reason: object, what: str) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(f"The {what} has no reason; give one sentence, which is kept with the version.")
