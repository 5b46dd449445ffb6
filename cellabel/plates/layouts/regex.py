r"""Any other naming, told by a person in `layout.yaml`: a regular expression with named groups.

```yaml
pattern: '(?P<plate>[^_]+)_(?P<position>p\d+)_t(?P<time>\d+)_z(?P<z>\d+)_(?P<channel>bf|nuc)\.tif'
only: {plate: 181024TK20}
channels: {bf: transmitted, nuc: nuclei}
pixel_size_um: 0.65
```
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._metadata import LAYOUT_FILE, LayoutFile
from cellabel.plates._wells import normal_well, well_name
from cellabel.plates.layouts._base import Found, Plane

_GROUPS = {"well", "row", "column", "position", "site", "time", "channel", "z", "plate"}


def find(folder: Path, files: Sequence[Path], settings: LayoutFile) -> Found | None:
    """The images whose names the pattern of `layout.yaml` matches.

    Raises:
        InputError: no pattern, a pattern that cannot be used, a group without number or well, several plates.
    """
    pattern = _pattern(folder, settings)
    matches: list[tuple[Path, dict[str, str]]] = []
    left_out: set[Path] = set()
    for path in files:
        name = path.relative_to(folder).as_posix() if "/" in pattern.pattern else path.name
        match = pattern.fullmatch(name)
        if match:
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            if _chosen(groups, settings):
                matches.append((path, groups))
            else:
                left_out.add(path)
    if not matches:
        return None
    plates = sorted({groups["plate"] for _, groups in matches if "plate" in groups})
    if len(plates) > 1:
        raise InputError(
            f"{folder} holds images of {len(plates)} plates ({', '.join(plates[:5])}): "
            f"choose one in {LAYOUT_FILE}, for example `only: {{plate: {plates[0]}}}`."
        )
    planes = [plane for path, groups in matches for plane in _planes(path, groups, settings)]
    return Found(
        planes,
        f"named as the pattern of {LAYOUT_FILE} tells ({len(matches)} files)",
        places_are_positions="position" in pattern.groupindex,
        left_out=left_out,
        plate_id=plates[0] if plates else None,
    )


def _pattern(folder: Path, settings: LayoutFile) -> re.Pattern[str]:
    if not settings.pattern:
        raise InputError(
            f"The layout regex needs a {LAYOUT_FILE} with a `pattern` in {folder}: see plates/README.md."
        )
    try:
        pattern = re.compile(settings.pattern)
    except re.error as error:
        raise InputError(
            f"The pattern in {LAYOUT_FILE} of {folder} is no regular expression: {error}."
        ) from error
    groups = set(pattern.groupindex)
    if unknown := sorted(groups - _GROUPS - set(settings.only)):
        raise InputError(
            f"The pattern in {LAYOUT_FILE} of {folder} has a group {unknown[0]!r}: "
            f"groups are {', '.join(sorted(_GROUPS))}."
        )
    places = ("well" in groups) + ({"row", "column"} <= groups) + ("position" in groups)
    if places != 1 or ("channel" not in groups and not settings.planes):
        raise InputError(
            f"The pattern in {LAYOUT_FILE} of {folder} must have one of the groups well, row and column, or "
            "position, and the group channel (or `planes` beside it)."
        )
    return pattern


def _chosen(groups: dict[str, str], settings: LayoutFile) -> bool:
    return all(
        groups.get(group) in ([wanted] if isinstance(wanted, str) else wanted)
        for group, wanted in settings.only.items()
    )


def _planes(path: Path, groups: dict[str, str], settings: LayoutFile) -> list[Plane]:
    place = groups.get("position") or _well(path, groups)
    site, time, z = (_number(path, groups, name) for name in ("site", "time", "z"))
    if settings.planes:
        n = len(settings.planes)
        return [
            Plane(path, place, site, name, time, z, page, n, samples_are_planes=True)
            for page, name in enumerate(settings.planes)
        ]
    return [Plane(path, place, site, groups.get("channel", "1"), time, z)]


def _well(path: Path, groups: dict[str, str]) -> str:
    text = groups.get("well") or f"{groups.get('row', '')}{groups.get('column', '')}"
    if "well" not in groups and groups.get("row", "").isdecimal() and groups.get("column", "").isdecimal():
        return well_name(int(groups["row"]), int(groups["column"]))
    well = normal_well(text)
    if well is None:
        raise InputError(
            f"{path.name}: {text!r} is no well of a plate: mend the pattern in {LAYOUT_FILE}, or the name."
        )
    return well


def _number(path: Path, groups: dict[str, str], name: str) -> int:
    text = groups.get(name, "1")
    if not text.isdecimal():
        raise InputError(f"{path.name}: the {name} {text!r} is no number: mend the pattern in {LAYOUT_FILE}.")
    return int(text)
