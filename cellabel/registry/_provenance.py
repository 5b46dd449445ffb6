"""Which code and which machine made a model."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT_VARIABLE = "CELLABEL_GIT_COMMIT"
"""Set where the code lies without its history, as in a container."""

CHANGED = "+changes"
"""Ends the commit of code whose files differ from it."""

_PACKAGES = (
    "cellabel", "torch", "lightning", "numpy", "scipy", "scikit-image", "opencv-python-headless", "pandas",
    "safetensors", "zarr", "mlflow",
)  # fmt: skip


def git_commit() -> str:
    """The commit of the running code, with "+changes" where files differ from it; "" where nobody knows."""
    told = os.environ.get(COMMIT_VARIABLE, "")
    root = Path(__file__).parents[2]
    if told or not (root / ".git").exists():
        return told
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        f"--dirty={CHANGED}",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or a history that it cannot read
        return ""
    return found.stdout.strip()


def environment() -> dict[str, Any]:
    """Interpreter, operating system, processor and the versions of the packages that decide the result."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
