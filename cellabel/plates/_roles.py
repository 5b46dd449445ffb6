"""Channel names → roles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from cellabel.errors import InputError
from cellabel.plates._issues import Issue
from cellabel.plates._metadata import LAYOUT_FILE, AcquisitionFile, LayoutFile
from cellabel.plates.layouts import Found

ROLES = ("transmitted", "nuclei", "er", "golgi", "gfp", "actin", "nucleoli")
"""The roles that recipes know, in the order in which a plate lists them."""

_WORDS = {
    "transmitted": "transmitted transmission trans tl bf brightfield dic nomarski phase phasecontrast pc",
    "nuclei": "nuclei nucleus nuclear nuc dapi hoechst dna draq5 nucblue",
    "er": "er reticulum ertracker cona concanavalin",
    "golgi": "golgi wga",
    "gfp": "gfp egfp fitc",
    "actin": "actin phalloidin",
    "nucleoli": "nucleoli nucleolus rna syto14",
}
_ROLE_OF_WORD = {word: role for role, words in _WORDS.items() for word in words.split()}
_EMISSION_NM = ((430, 480, "nuclei"), (500, 530, "gfp"))
"""Bands in which one stain is meant unless a name says otherwise; redder dyes are used for anything."""
_NOT_A_STAIN_OF = {"dead", "mask", "outline", "pi"}


def role_of_name(name: str) -> str | None:
    """The role that a channel's name tells ("DAPI" is nuclei, "TL DIC" transmitted), or None."""
    words = re.findall(r"[a-z]+\d*", name.lower().replace("bright field", "brightfield"))
    if any(word in _NOT_A_STAIN_OF for word in words):
        return None
    joined = "".join(words)
    candidates = [*words, *(word.rstrip("0123456789") for word in words)]
    candidates += ["brightfield"] * ("brightfield" in joined) + ["phasecontrast"] * (
        "phasecontrast" in joined
    )
    roles = [_ROLE_OF_WORD[word] for word in candidates if word in _ROLE_OF_WORD]
    return roles[0] if roles else None


def role_order(role: str) -> tuple[int, str]:
    """A key that sorts roles: transmitted first, the known stains next, others by name."""
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)


def role_of_hint(hint: str) -> str | None:
    """The role that a dye, a contrast method or an emission wavelength ("461 nm") tells, or None."""
    wavelength = re.fullmatch(r"(\d+(?:\.\d+)?) nm", hint)
    if wavelength is None:
        return role_of_name(hint)
    nm = float(wavelength[1])
    return next((role for lower, upper, role in _EMISSION_NM if lower <= nm <= upper), None)


def channel_roles(
    found: Found, settings: LayoutFile, record: AcquisitionFile, folder: Path, site: Mapping[str, str]
) -> dict[str, str]:
    """Channel key → role; channels that layout.yaml leaves out are absent.

    The order of who is believed: layout.yaml, acquisition.json, the site's settings, the channel's name, what
    else the vendor's files tell of it.

    Raises:
        InputError: two channels with one role.
    """
    roles: dict[str, str] = {}
    told: set[str] = set()
    by_name = {role_of_name(found.names.get(plane.channel, plane.channel)) for plane in found.planes}
    for channel in sorted({plane.channel for plane in found.planes}, key=_natural):
        name = found.names.get(channel, channel)
        spellings = (channel, f"w{channel}", f"ch{channel}", channel.removeprefix("ch"), name)
        named = [
            given
            for given in (settings.channels, record.channels, site)
            if any(s in given for s in spellings)
        ]
        if named:
            role = next(named[0][s] for s in spellings if s in named[0])
            if not role:
                continue
            if role in told:
                raise InputError(f"{folder}: two channels are given the role {role!r}: give each its own.")
            told.add(role)
        else:
            role = role_of_name(name) or ""
            if not role:
                role = _hinted(channel, name, by_name | set(roles.values()), found)
        own = f"w{name}" if name.isdecimal() else name
        if not role:
            found.issues.append(Issue(None, None, own, "the channel is not known and keeps its own name"))
        elif not named and role in roles.values():
            found.issues.append(
                Issue(None, None, own, f"another channel is {role} already, it keeps its own name")
            )
            role = ""
        roles[channel] = role or own
    if doubled := [role for role, count in Counter(roles.values()).items() if count > 1]:
        raise InputError(
            f"{folder}: two channels are called {doubled[0]!r}: give each a role in {LAYOUT_FILE}."
        )
    return roles


def _hinted(channel: str, name: str, taken: set[str | None], found: Found) -> str:
    """The role that the metadata of an unknown channel tell, when no other channel has it; else ""."""
    for hint in found.hints.get(channel, ()):
        role = role_of_hint(hint)
        if role and role not in taken:
            found.tell(f"channel {name} is taken as {role}, as its metadata say {hint!r}")
            return role
    return ""


def _natural(text: str) -> tuple[int, str]:
    number = re.search(r"\d+$", text)
    return (int(number[0]) if number else 0, text)
