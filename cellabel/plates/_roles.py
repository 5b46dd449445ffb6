"""Channel names → roles."""

from __future__ import annotations

import re

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
