"""Channel names → roles."""

from __future__ import annotations

import re
from collections import Counter
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


def channel_roles(
    found: Found, settings: LayoutFile, record: AcquisitionFile, folder: Path
) -> dict[str, str]:
    """Channel key → role; channels that layout.yaml leaves out are absent.

    Raises:
        InputError: two channels with one role.
    """
    roles: dict[str, str] = {}
    told: set[str] = set()
    for channel in sorted({plane.channel for plane in found.planes}, key=_natural):
        name = found.names.get(channel, channel)
        spellings = (channel, f"w{channel}", f"ch{channel}", channel.removeprefix("ch"), name)
        named = [
            given for given in (settings.channels, record.channels) if any(s in given for s in spellings)
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


def _natural(text: str) -> tuple[int, str]:
    number = re.search(r"\d+$", text)
    return (int(number[0]) if number else 0, text)
