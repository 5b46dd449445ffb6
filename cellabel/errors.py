"""The one error that a person can mend."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["InputError", "did_you_mean"]


class InputError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do about it.

    The command line prints the sentence and exits with code 2; a Dagster run fails with the same sentence.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean window?)`, or nothing where no known name looks like it."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
