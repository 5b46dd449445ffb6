"""A version as a package of the BioImage Model Zoo: one zip that other software opens without this one.

The architecture file holds the network's own source with everything that it needs of this package, so that it
runs on PyTorch alone. Normalisation, scale and sigmoid are part of it: raw image in, stain out.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.prediction import OrganelleModel

FORMAT = "0.5.3"
ENTRY, CALLABLE = "cellabel.networks._portable", "StainPredictor"
_SIDE = 96


def write_package(
    model: OrganelleModel,
    path: Path,
    *,
    name: str,
    description: str,
    documentation: str,
    authors: Sequence[str],
    licence: str,
) -> Path:
    """Write a zip with `rdf.yaml`, weights, architecture, documentation, test input and test output.

    Args:
        model: the model.
        path: ends in .zip; replaced if it exists.
        name: for people, 5 to 128 characters.
        description: one sentence.
        documentation: Markdown.
        authors: who answers for the model.
        licence: of the weights, an SPDX identifier.

    Raises:
        InputError: the path is no .zip, or its folder cannot be written.
    """
    if path.suffix != ".zip":
        raise InputError(f"{path} is no .zip: name the package's file such as {path.stem}.zip.")
    files = _files(model, documentation)
    record = _record(model, files, name=name, description=description, authors=authors, licence=licence)
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, content in {"rdf.yaml": record.encode(), **files}.items():
                archive.writestr(file, content)
        os.replace(scratch, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place.") from error
    return path


def _files(model: OrganelleModel, documentation: str) -> dict[str, bytes]:
    import torch

    from cellabel.networks._portable import StainPredictor

    portable = StainPredictor(**_arguments(model)).eval()
    portable.network.load_state_dict(model.network.state_dict())
    shape = (1, 1, _SIDE, _SIDE + model.network.stride)
    raw = np.random.default_rng(0).normal(1000, 100, shape).astype(np.float32)
    with torch.inference_mode():
        stain = portable(torch.from_numpy(raw)).numpy()
    weights = io.BytesIO()
    torch.save(portable.state_dict(), weights)
    return {
        "weights.pt": weights.getvalue(),
        "architecture.py": standalone_source(ENTRY).encode(),
        "README.md": documentation.encode(),
        "test_input.npy": _npy(raw),
        "test_output.npy": _npy(stain),
    }


def _arguments(model: OrganelleModel) -> dict[str, Any]:
    scale = 1.0 if model.binary else model.target_scale
    return {"target_scale": scale, "binary": model.binary, **model.network.config}


def _record(
    model: OrganelleModel,
    files: Mapping[str, bytes],
    *,
    name: str,
    description: str,
    authors: Sequence[str],
    licence: str,
) -> str:
    import torch
    import yaml

    def file(which: str) -> dict[str, str]:
        return {"source": which, "sha256": hashlib.sha256(files[which]).hexdigest()}

    grid = {"min": model.network.stride, "step": 1}
    space = {"type": "space", "unit": "micrometer", "scale": model.pixel_size_um}
    axes: dict[str, list[dict[str, Any]]] = {}
    for tensor in ("transmitted", model.organelle):
        first = tensor == "transmitted"
        axes[tensor] = [{"type": "batch"}, {"type": "channel", "channel_names": [tensor]}]
        for axis in ("y", "x"):
            size = grid if first else {"tensor_id": "transmitted", "axis_id": axis}
            axes[tensor].append({**space, "id": axis, "size": size})
    content = {
        "type": "model",
        "format_version": FORMAT,
        "name": name,
        "description": description,
        "authors": [{"name": author} for author in authors],
        "cite": [
            {
                "text": "Ronneberger, Fischer & Brox 2015, U-Net: Convolutional Networks for Biomedical "
                "Image Segmentation",
                "doi": "10.1007/978-3-319-24574-4_28",
            }
        ],
        "license": licence,
        "documentation": "README.md",
        "tags": ["in-silico labelling", "unet", "2d", "pytorch", "transmitted light", model.organelle],
        "inputs": [
            {
                "id": "transmitted",
                "description": "Raw transmitted light; whole images, not tiles.",
                "axes": axes["transmitted"],
                "data": {"type": "float32"},
                "test_tensor": file("test_input.npy"),
            }
        ],
        "outputs": [
            {
                "id": model.organelle,
                "description": "Probability of the stain." if model.binary else "The stain in its own units.",
                "axes": axes[model.organelle],
                "data": {"type": "float32"},
                "test_tensor": file("test_output.npy"),
            }
        ],
        "weights": {
            "pytorch_state_dict": {
                **file("weights.pt"),
                "architecture": {
                    **file("architecture.py"),
                    "callable": CALLABLE,
                    "kwargs": _arguments(model),
                },
                "pytorch_version": torch.__version__.split("+")[0],
            }
        },
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def standalone_source(module: str, package: str = "cellabel") -> str:
    """The source of a module with that of all modules of its package that it needs, in one text.

    Raises:
        InputError: an import that cannot be taken along (a module as a whole, or under another name).
    """
    parts: dict[str, str] = {}
    _collect(module, package, parts)
    return "from __future__ import annotations\n\n" + "\n\n".join(parts.values())


def _collect(module: str, package: str, parts: dict[str, str]) -> None:
    """Put what a module needs into `parts`, then the module itself."""
    if module in parts:
        return
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise InputError(f"The module {module} cannot be found: install cellabel again.")
    source = Path(found.origin).read_text(encoding="utf-8")
    dropped: set[int] = set()
    for node in ast.parse(source).body:
        inner = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package
        whole = isinstance(node, ast.Import) and any(one.name.split(".")[0] == package for one in node.names)
        if whole or (inner and any(one.asname for one in node.names)):  # type: ignore[attr-defined]
            raise InputError(f"{module} imports in a way that cannot be taken along: export by its names.")
        if inner:
            _collect(str(node.module), package, parts)  # type: ignore[attr-defined]
        if inner or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = source.splitlines()
    parts[module] = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
