"""What every operation here asks of an image, and the background and noise that most of them need."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellabel.errors import InputError

__all__ = [
    "Background",
    "background_and_noise",
    "histogram_quantiles",
    "pixel_size_of",
    "require_image",
    "to_pixels",
]

FloatImage = NDArray[np.float32]


class Background(NamedTuple):
    """Level and spread of the pixels that show no object, in the image's units."""

    level: float
    noise: float


def require_image(image: ArrayLike, what: str = "The image") -> NDArray[Any]:
    """The image as a finite two-dimensional numeric array; nothing is copied where nothing must change.

    Args:
        image: (H, W), any boolean, integer or floating type.
        what: subject of the sentence if it is refused.

    Raises:
        InputError: not (H, W), empty, not numeric, NaN or infinite values.
    """
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise InputError(f"{what} has rows of several lengths; give one array of shape (H, W).") from error
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"{what} has shape {array.shape}, but one channel and one plane (H, W) is needed; "
            "select the channel and project the z-steps first."
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"{what} has values of type {array.dtype}, which are no intensities; read it as numbers."
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            raise InputError(
                f"{what} has {count} of {array.size} pixels that are NaN or infinite; "
                "export it again or leave it out."
            )
        if array.dtype == np.float16:
            return array.astype(np.float32)
    return array


def to_pixels(length_um: float, pixel_size_um: float | None, minimum: float = 0.0) -> float:
    """A length in micrometres as a length in pixels.

    Args:
        length_um: the length, µm.
        pixel_size_um: size of a pixel, µm; None means the recipes' reference size.
        minimum: the smallest length that still makes sense, px.

    Raises:
        InputError: the pixel size is not a positive number.
    """
    return max(length_um / pixel_size_of(pixel_size_um), minimum)


def pixel_size_of(pixel_size_um: float | None) -> float:
    """The size of a pixel, µm; None means the recipes' reference size.

    Raises:
        InputError: not a positive number.
    """
    from cellabel.organelles import REFERENCE_PIXEL_SIZE_UM

    size = REFERENCE_PIXEL_SIZE_UM if pixel_size_um is None else pixel_size_um
    if not (isinstance(size, Real) and np.isfinite(size) and size > 0):
        raise InputError(
            f"The pixel size is {pixel_size_um!r} µm; give the micrometres that one pixel covers."
        )
    return float(size)


def histogram_quantiles(image: NDArray[Any], shares: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of all pixels, by counting where the image is 8 or 16 bit and by partition elsewhere.

    Args:
        image: (H, W).
        shares: each from 0 to 1.

    Returns:
        One value a share. For 8- and 16-bit images the lower of the two neighbouring order statistics.
    """
    if image.dtype in (np.uint8, np.uint16):
        cumulative = np.cumsum(np.bincount(image.ravel()))
        ranks = np.asarray(shares) * (image.size - 1) + 1
        return tuple(float(v) for v in np.searchsorted(cumulative, np.floor(ranks), side="left"))
    flat = image.ravel()
    positions = [int(share * (flat.size - 1)) for share in shares]
    ordered = np.partition(flat, positions)
    return tuple(float(ordered[position]) for position in positions)


def background_and_noise(image: NDArray[Any], bins: int = 1024) -> Background:
    """Level and spread of the background: the mode of the darker class, and the spread below that mode.

    The darker class is what Otsu's threshold leaves behind, so a crowded field does not move the level; the
    spread is taken below the mode alone, because objects and blur lie above it. On a field without objects it
    is the level and the standard deviation of the noise. The histogram is narrowed until it resolves the
    spread, so that one very bright clone does not hide the noise.

    Args:
        image: (H, W), the image's units.
        bins: of the histogram.

    Returns:
        Level and noise (one standard deviation), the image's units. A constant image has no noise.
    """
    values, weights = _tally(image)
    if weights is None:
        low, high = histogram_quantiles(values, (0.0, 0.999))
    else:
        low, high = float(values[0]), float(values[np.searchsorted(np.cumsum(weights), 0.999 * image.size)])
    if not high > low:
        return Background(low, 0.0)
    for narrowing in range(6):
        width = (high - low) / bins
        kept = values <= high if narrowing else slice(None)
        place = np.clip((values[kept] - low) / width, 0, bins - 1).astype(np.intp)
        counts = np.bincount(place, weights=None if weights is None else weights[kept], minlength=bins)
        dark = counts if narrowing else counts[: otsu_bin(counts) + 1]
        mode = _mode(dark)
        below = dark[: mode + 1]
        spread = np.sqrt(np.sum(below * (mode - np.arange(mode + 1)) ** 2) / max(below.sum(), 1.0))
        narrower = low + (mode + 20 * max(spread, 1.0)) * width
        if spread > 10 or narrower >= high:
            break
        high = narrower
    # Whole numbers spread over half a step at least, also where all of them agree.
    smallest = 0.5 * width if weights is None else max(0.5 * width, 0.29)
    return Background(float(low + (mode + 0.5) * width), float(max(spread * width, smallest)))


def _tally(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """All pixels as numbers, or for 8 and 16 bit every value once with its frequency."""
    if image.dtype not in (np.uint8, np.uint16):
        return image.ravel().astype(np.float64), None
    frequency = np.bincount(image.ravel()).astype(np.float64)
    values = np.flatnonzero(frequency)
    return values.astype(np.float64), frequency[values]


def otsu_bin(counts: NDArray[Any]) -> int:
    """The bin after which Otsu's method cuts a histogram (largest variance between the two classes)."""
    weights = np.cumsum(counts, dtype=np.float64)
    moments = np.cumsum(counts * np.arange(counts.size), dtype=np.float64)
    total, mean = weights[-1], moments[-1]
    inside = np.maximum(weights * (total - weights), np.finfo(np.float64).tiny)
    between = (mean * weights - moments * total) ** 2 / inside
    between[weights >= total] = 0.0
    return int(np.argmax(between))


def _mode(counts: NDArray[Any]) -> int:
    """The middle of the shortest run of bins that holds a half of the shortest run that holds a half.

    Source: Robertson & Cryer 1974 (the half-sample mode), stopped after two halvings.
    """
    first, last = 0, counts.size - 1
    for _ in range(2):
        total = np.concatenate([[0.0], np.cumsum(counts[first : last + 1], dtype=np.float64)])
        ends = np.searchsorted(total, total[:-1] + total[-1] / 2, side="left")
        possible = np.flatnonzero(ends < total.size)
        lengths = ends[possible] - possible
        # Of runs of one length the fullest, so that a turned image has the same mode.
        held = total[ends[possible]] - total[possible]
        best = possible[np.lexsort((-held, lengths))[0]]
        first, last = first + int(best), first + int(ends[best]) - 1
    held = np.asarray(counts[first : last + 1], np.float64)
    return first + int(np.searchsorted(np.cumsum(held), held.sum() / 2))
