"""The files of a version: which are logged, and whether they are still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellabel.errors import InputError

WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
REQUIRED = (WEIGHTS, CONFIG)

DATA_SUFFIXES = frozenset(
    {".safetensors", ".json", ".csv", ".parquet", ".yaml", ".yml", ".md", ".txt", ".png", ".svg", ".html"}
)
"""Files that hold data and no code; anything else (pickles, checkpoints) stays out of a version."""


def files_to_log(folder: Path) -> list[Path]:
    """The data files at the top of a training's folder, sorted.

    Raises:
        InputError: the folder or one of the required files is missing, or the configuration is no JSON.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that a training wrote.")
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: give the folder that a finished training wrote.")
    read_json_file(folder / CONFIG)
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in DATA_SUFFIXES)


def read_json_file(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        InputError: it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): write the model's folder again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object: write the model's folder again.")
    return content


def sha256(path: Path) -> str:
    """The checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(paths: list[Path]) -> dict[str, str]:
    """File name → checksum."""
    return {path.name: sha256(path) for path in paths}


def check_files(folder: Path, expected: Mapping[str, str], what: str) -> None:
    """Check that every file is there and unchanged; `what` names the version in the sentence.

    Raises:
        InputError: a file is missing or its checksum differs.
    """
    for name, checksum in expected.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{what} is incomplete ({name} is missing in {folder}): register it again.")
        if sha256(path) != checksum:
            raise InputError(
                f"{what} is corrupted (the checksum of {name} in {folder} differs from the one registered): "
                "restore the file from a backup or register the model again."
            )


CHECKSUMS = "files_sha256"
"""The tag that holds file name → checksum as JSON."""


MLMODEL = "MLmodel"
"""By it MLflow knows which code reads the others; it has a checksum too, lest it name other code."""


def checksum_tag(checksums: Mapping[str, str]) -> str:
    """Checksums as the text of a tag."""
    return json.dumps(dict(checksums), sort_keys=True)


def trained_files(tags: Mapping[str, str]) -> dict[str, str]:
    """The checksums among a version's tags that are a training's own; empty where there are none."""
    try:
        found = expected_checksums(tags, "")
    except InputError:
        return {}
    return {name: checksum for name, checksum in found.items() if name != MLMODEL}


def expected_checksums(tags: Mapping[str, str], what: str) -> dict[str, str]:
    """The checksums among a version's tags.

    Raises:
        InputError: there are none, so that nothing vouches for its files.
    """
    try:
        found = json.loads(tags.get(CHECKSUMS, ""))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not set(REQUIRED) <= set(found):
        raise InputError(
            f"{what} was only half logged (it has no checksums of its files): register it again."
        )
    return found
