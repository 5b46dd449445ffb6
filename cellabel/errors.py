"""The one error that a person can mend."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do about it.

    The command line prints the sentence and exits with code 2; a Dagster run fails with the same sentence.
    """
