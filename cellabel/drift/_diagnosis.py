"""Which known corruption would have turned the reference into what is seen now, if any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.drift._kernel import Floats, GaussianKernel, as_rows, choose_bandwidths
from cellabel.drift._permutation import mmd_permutation_test
from cellabel.errors import InputError

__all__ = ["Diagnosis", "Kinds", "diagnose"]

Embed = Callable[[Any], ArrayLike]
Corruption = Callable[..., NDArray]
Kinds = Sequence[str] | Mapping[str, Corruption | Mapping[float, Corruption]]
Alternatives = Mapping[str, Callable[[NDArray], NDArray]]

EXPLAINED = 0.35
"""A candidate must leave less than this share of the shift unexplained."""

STEPS_BETWEEN = 4
"""Severities tried from one that was embedded to the next, by interpolation of each image's embedding."""

RESAMPLES = 200
SIGNIFICANT = 0.05
CALLABLE_SEVERITIES = (1, 2, 3, 4, 5)
EXPOSURE = "exposure"
EXPOSURES = frozenset({"brightness", "contrast"})


@dataclass(frozen=True)
class Diagnosis:
    """The likeliest cause of a shift.

    Attributes:
        kind: name of the corruption; None where none of those tried explains the shift, or there is no shift.
        severity: the severity that comes closest, between those of the table too; None without a kind.
        confidence: share of resamplings of the rows (0..1) that give the same answer.
        sentence: the answer for a person.
        unexplained: share of the shift's MMD² that the best candidate leaves.
        corruption: the single corruption that came closest, where `kind` is a group of several.
        left: share of the shift's MMD² that the best severity of each kind leaves; empty where there is no
            shift.
        nearest: that severity of each kind.
    """

    kind: str | None
    severity: float | None
    confidence: float
    sentence: str
    unexplained: float = 1.0
    corruption: str | None = None
    left: Mapping[str, float] = field(default_factory=dict)
    nearest: Mapping[str, float] = field(default_factory=dict)

    def with_severity(self, severity: float) -> Diagnosis:
        """The same cause, of the severity that another stream tells better.

        Raises:
            InputError: there is no cause.
        """
        if self.kind is None:
            raise InputError("A diagnosis without a cause has no severity; ask one that names a cause.")
        sentence = f"looks like {_in_words(self.kind, self.corruption or self.kind, severity)}"
        return replace(self, severity=severity, sentence=sentence)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)


@dataclass(frozen=True)
class _Candidate:
    kind: str
    severity: float
    embeddings: Floats


def diagnose(
    embed: Embed,
    reference_images: Sequence[NDArray] | NDArray,
    new_embeddings: ArrayLike,
    *,
    kinds: Kinds | None = None,
    alternatives: Alternatives | None = None,
    full_scale: float | None = None,
    exposure: bool = True,
    seed: int = 0,
) -> Diagnosis:
    """Compare new embeddings with those of reference images under every known corruption.

    Args:
        embed: images → (n, d) embeddings, the model and pooling that made `new_embeddings`.
        reference_images: raw images without drift, at least 4; each is one row.
        new_embeddings: (m, d), at least 4 rows.
        kinds: names of table 5's corruptions (all of them by default), or a mapping of names to functions
            `(image, severity) → image`, tried at severities 1 to 5, or to mappings severity → function of an
            image. Several of one kind are told apart by words in brackets: "defocus" and "defocus (pupil)".
        alternatives: what else may have happened to an image, by name: no corruption, so that where one of
            them comes closest there is no kind, and the sentence names it.
        full_scale: the instrument's range, where the images' dtype does not say it.
        exposure: report brightness and contrast, where both are asked for, as one kind, "exposure": the
            input's normalisation makes them alike.
        seed: of the resampling.

    Raises:
        InputError: too few rows, embeddings of different lengths, or an unknown kind.
    """
    images = list(reference_images)
    new = as_rows(new_embeddings, "new embeddings")
    if min(len(images), len(new)) < 4:
        raise InputError(
            f"There are {len(images)} reference images and {len(new)} new embeddings; "
            "give at least 4 of each."
        )
    clean = _embedded(embed, images, new.shape[1])
    tried = [
        _Candidate(kind, severity, _embedded(embed, corrupted, new.shape[1]))
        for kind, severity, corrupted in _corrupted(images, kinds, full_scale)
    ]
    candidates = _with_those_between(clean, tried)
    if not candidates:
        raise InputError("No corruption leaves these images readable; give other kinds or other images.")
    if mmd_permutation_test(clean, new, n_permutations=199, seed=seed).p_value > SIGNIFICANT:
        return Diagnosis(
            None, None, 1.0, "The new embeddings do not differ from the reference beyond chance."
        )
    others = [
        _Candidate(name, 1.0, _embedded(embed, [change(image) for image in images], new.shape[1]))
        for name, change in (alternatives or {}).items()
    ]
    distances = _distances(clean, [*candidates, *others], new, np.random.default_rng(seed))
    together = exposure and _asks_for_exposure(kinds)
    groups = [*(_group(c.kind, together) for c in candidates), *(None for _ in others)]
    return _answer([*candidates, *others], groups, distances)


def _asks_for_exposure(kinds: Kinds | None) -> bool:
    """Whether brightness and contrast are both among the kinds; one alone is told by its own name."""
    names = () if isinstance(kinds, str) else kinds
    return names is None or {_group(name, exposure=False) for name in names} >= EXPOSURES


def _group(kind: str, exposure: bool) -> str:
    """What a candidate is reported as."""
    kind = kind.partition(" (")[0]
    return EXPOSURE if exposure and kind in EXPOSURES else kind


def _embedded(embed: Embed, images: Sequence[NDArray], length: int) -> Floats:
    rows = as_rows(embed(images), "embeddings of the reference images")
    if rows.shape != (len(images), length):
        raise InputError(
            f"embed gave {rows.shape} for {len(images)} images, but the new embeddings have length {length}; "
            "use the same model and one row an image."
        )
    return rows


def _corrupted(
    images: list[NDArray], kinds: Kinds | None, full_scale: float | None
) -> Iterator[tuple[str, float, list[NDArray]]]:
    if kinds is None or not isinstance(kinds, Mapping):
        yield from _table_five(images, kinds, full_scale)
        return
    for name, made in kinds.items():
        if isinstance(made, Mapping):
            for severity, function in made.items():
                yield name, float(severity), [function(image) for image in images]
        else:
            for severity in CALLABLE_SEVERITIES:
                yield name, float(severity), [made(image, severity) for image in images]


def _table_five(
    images: list[NDArray], kinds: Sequence[str] | None, full_scale: float | None
) -> Iterator[tuple[str, float, list[NDArray]]]:
    from cellabel.corruptions import DESTROYED_SHARE, SEVERITIES, clipped_share, corrupt

    wanted = list(SEVERITIES) if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = sorted(set(wanted) - set(SEVERITIES))
    if unknown:
        raise InputError(
            f"No corruption is called {unknown[0]!r}; the known ones are {', '.join(SEVERITIES)}."
        )
    for kind in wanted:
        for severity in (s for s in SEVERITIES[kind] if s != 0):
            shares = [clipped_share(image, kind, severity, full_scale=full_scale) for image in images]
            if np.mean(shares) <= DESTROYED_SHARE:
                yield kind, severity, [corrupt(i, kind, severity, full_scale=full_scale) for i in images]


def _with_those_between(clean: Floats, tried: list[_Candidate]) -> list[_Candidate]:
    """The candidates, and between two neighbours of a kind, from no severity on, some interpolated ones.

    The rows of all candidates are the same images, so the way from one severity to the next is a line for
    each image. A severity of 0 (or the first of a callable's) has the unaltered images before it.
    """
    found = []
    for _, ways in groupby(tried, key=lambda one: (one.kind, one.severity > 0)):
        way = sorted(ways, key=lambda one: abs(one.severity))
        sign = 1.0 if way[0].severity > 0 else -1.0
        for lower, upper in pairwise([_Candidate(way[0].kind, 0.0, clean), *way]):
            low, high = abs(lower.severity), abs(upper.severity)
            for step in range(1, STEPS_BETWEEN + 1):
                share = step / STEPS_BETWEEN
                rows = (1 - share) * lower.embeddings + share * upper.embeddings
                severity = sign * ((1 - share) * low + share * high)
                found.append(_Candidate(upper.kind, severity, rows))
    return found


def _distances(clean: Floats, candidates: list[_Candidate], new: Floats, rng: np.random.Generator) -> Floats:
    """(1 + candidates, 1 + resamples) unbiased MMD² to the new rows: unaltered first, all rows first.

    The same resampled reference images serve all candidates. Pairs of one row with itself are left out, also
    where resampling has drawn it twice, or every distance would grow by the same bias and ratios would
    shrink.
    """
    centre = clean.mean(axis=0)
    every = np.concatenate([clean, new, *(c.embeddings for c in candidates)]) - centre
    some = every[rng.permutation(len(every))[:1000]]
    kernel = GaussianKernel(choose_bandwidths("median", some))
    of_clean, of_new = _weights(len(clean), rng), _weights(len(new), rng)
    centred = new - centre
    within = _pair_means(kernel(centred, centred), of_new)
    result = np.empty((1 + len(candidates), RESAMPLES + 1))
    for place, rows in enumerate([clean, *(c.embeddings for c in candidates)]):
        rows = rows - centre
        own = _pair_means(kernel(rows, rows), of_clean)
        cross = np.einsum("bi,ij,bj->b", of_clean, kernel(rows, centred), of_new, optimize=True)
        result[place] = own + within - 2 * cross
    return result


def _weights(n: int, rng: np.random.Generator) -> Floats:
    """Row weights that sum to 1: first all alike, then `RESAMPLES` bootstrap draws."""
    draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.concatenate([np.ones((1, n)), draws]) / n


def _pair_means(kernel: Floats, weights: Floats) -> Floats:
    off = kernel.copy()
    np.fill_diagonal(off, 0.0)
    return np.einsum("bi,ij,bj->b", weights, off, weights, optimize=True) / (1 - (weights**2).sum(axis=1))


def _answer(candidates: list[_Candidate], groups: list[str | None], distances: Floats) -> Diagnosis:
    """The answer; candidates of no group are alternatives, which may come closest but are no kind."""
    shift, left = distances[0], distances[1:]
    best = left.argmin(axis=0)
    answers = [
        groups[place] if left[place, b] < EXPLAINED * shift[b] else None for b, place in enumerate(best)
    ]
    kind = answers[0]
    confidence = float(np.mean([answer == kind for answer in answers[1:]]))
    nearest = candidates[int(best[0])]
    shares = np.clip(left[:, 0] / shift[0], 0, None) if shift[0] > 0 else np.ones(len(left))
    unexplained = float(shares[best[0]])
    best_of: dict[str, int] = {}
    for one, group in enumerate(groups):
        if group is not None and (group not in best_of or shares[one] < shares[best_of[group]]):
            best_of[group] = one
    by_kind = {group: float(shares[one]) for group, one in best_of.items()}
    severities = {group: candidates[one].severity for group, one in best_of.items()}
    if kind is None:
        sentence = (
            f"looks like none of the known causes: {nearest.kind} comes closest and leaves "
            f"{min(unexplained, 1):.0%} of the shift unexplained"
        )
        return Diagnosis(None, None, confidence, sentence, unexplained, left=by_kind, nearest=severities)
    name = _group(nearest.kind, exposure=False)
    sentence = f"looks like {_in_words(kind, name, nearest.severity)}"
    return Diagnosis(kind, nearest.severity, confidence, sentence, unexplained, name, by_kind, severities)


def _in_words(kind: str, corruption: str, severity: float) -> str:
    severe = f"severity {severity:.2g}"
    amount = _amount(corruption, severity)
    if amount is None:
        return f"{kind} ({severe})"
    words = {
        "defocus": f"radius ≈ {amount:.2g} px",
        "contrast": f"gain ≈ {amount:.2g}",
        "brightness": f"bias ≈ {amount:+.0f} of 255",
    }[corruption]
    name = kind if kind == corruption else f"{kind} ({corruption})"
    return f"{name}, {words} ({severe})"


def _amount(kind: str, severity: float) -> float | None:
    """Table 5 between its columns, and beyond its last one as steeply as before it; None for other kinds."""
    from cellabel.corruptions import SEVERITIES

    table = SEVERITIES.get(kind)
    if table is None:
        return None
    columns = sorted(table)
    amount = float(np.interp(severity, columns, [table[one] for one in columns]))
    return amount + max(0.0, severity - columns[-1]) * (table[columns[-1]] - table[columns[-2]])
