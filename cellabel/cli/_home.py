"""The home that a command looks into, where it makes none itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cellabel.cli._output import note
from cellabel.errors import InputError

if TYPE_CHECKING:
    from cellabel.settings import Settings

__all__ = ["settings_of_existing_home"]


def settings_of_existing_home() -> Settings:
    """The settings of a home that is there: a listing of one that is misspelt would be empty.

    Raises:
        InputError: CELLABEL_HOME names a folder that does not exist.
    """
    from cellabel.settings import HOME_VARIABLE, load_settings

    settings = load_settings()
    if settings.store_url or settings.home.is_dir():
        return settings
    if os.environ.get(HOME_VARIABLE):
        raise InputError(
            f"There is no home at {settings.home}: correct {HOME_VARIABLE}, or import a plate there first."
        )
    note(f"There is no home at {settings.home} yet: import a plate, or name another by {HOME_VARIABLE}.")
    return settings
