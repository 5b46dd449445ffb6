"""Where an image belongs: positions → wells, times → sites."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from cellabel.errors import InputError
from cellabel.plates._issues import Issue
from cellabel.plates._metadata import LAYOUT_FILE, LayoutFile
from cellabel.plates._wells import normal_well, successive_wells
from cellabel.plates.layouts import Found, Plane


def give_wells(found: Found, settings: LayoutFile) -> None:
    """Positions get wells: those that layout.yaml names, else successive ones in sorted order.

    Raises:
        InputError: a position without a well, or more positions than wells.
    """
    if not found.places_are_positions:
        return
    places = sorted({plane.place for plane in found.planes})
    if settings.wells == "sorted":
        wells = dict(zip(places, successive_wells(len(places)), strict=True))
    else:
        wells = {}
        for place in places:
            well = normal_well(settings.wells.get(place, ""))
            if well is None:
                raise InputError(
                    f"Position {place!r} has no well: name one (as A01) under `wells` in {LAYOUT_FILE}."
                )
            wells[place] = well
    # One order of sites for positions that share a well: by position, then by site.
    numbers: dict[tuple[str, int], int] = {}
    for well in set(wells.values()):
        here = sorted({(p.place, p.site) for p in found.planes if wells[p.place] == well})
        shared = len({place for place, _ in here}) > 1
        numbers |= {key: (k if shared else key[1]) for k, key in enumerate(here, start=1)}
    found.planes = [_moved(p, wells[p.place], numbers[p.place, p.site]) for p in found.planes]
    told = ", ".join(f"{place} is {wells[place]}" for place in places)
    found.issues.append(Issue(None, None, None, f"positions were given wells: {told}"))


def times_to_sites(found: Found) -> None:
    """Several times of one position become sites, numbered by site, then time."""
    if len({plane.time for plane in found.planes}) < 2:
        return
    by_well: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for plane in found.planes:
        by_well[plane.place].add((plane.site, plane.time))
    numbers = {
        (well, *key): number
        for well, keys in by_well.items()
        for number, key in enumerate(sorted(keys), start=1)
    }
    found.planes = [_moved(p, p.place, numbers[p.place, p.site, p.time]) for p in found.planes]
    n_times = len({time for keys in by_well.values() for _, time in keys})
    reason = f"{n_times} time points: several times of one position became sites, numbered by site, then time"
    found.issues.append(Issue(None, None, None, reason))


def _moved(plane: Plane, place: str, site: int) -> Plane:
    return replace(plane, place=place, site=site)
