"""One image before any normalisation → a few numbers that a microscope's faults move."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cellabel.errors import InputError

FEATURES = (
    "level", "spread", "contrast", "black_share", "saturated_share", "noise", "sharpness_1", "sharpness_2",
    "sharpness_4", "signal_to_noise", "unevenness", "tilt", "skewness", "anisotropy",
)  # fmt: skip
"""What `acquisition_features` measures, in this order."""
_CAMERA_MAXIMA = (255, 1023, 4095, 16383, 65535)
_GRID = 16
_DEBRIS_DEVIATIONS = 12.0
_MIN_SIDE = 16
_MAD_TO_SD = 1.4826
_MEAN_BELOW_LIMIT = 0.7724
"""Mean of |z| of a standard normal z where |z| ≤ 2.5: unlike a median, not in steps for 8-bit images."""


def acquisition_features(image: np.ndarray) -> dict[str, float]:
    """Numbers of one raw image, for quality control and for the stream of acquisition features.

    Args:
        image: `(H, W)`, at least 16 × 16, of the type in which it was taken.

    Returns:
        level: median, in the image's units.
        spread: half the distance between the 16 % and 84 % quantile, in the image's units.
        contrast: spread over level.
        black_share, saturated_share: share of pixels at 0 (or below), and at the camera's maximum.
        noise: standard deviation of the pixel noise, in the image's units.
        sharpness_1, _2, _4: share of the variance (but the coarsest, less noise) in details of 1, 2, 4 px.
        signal_to_noise: standard deviation of detail finer than 16 px over that of the noise.
        unevenness: (max − min) over mean of the illumination, a quadratic fitted to medians of blocks.
        tilt: its linear part alone.
        skewness: third standardised moment, outliers within ±4 standard deviations.
        anisotropy: log ratio of the variation along the two diagonals, 0 where none is preferred.

    Raises:
        InputError: not `(H, W)`, too small, or with NaN or infinite pixels.

    Source: noise as by Immerkær 1996 (Comput Vis Image Underst 64:300), made robust; detail by the
    variances of means of 2 × 2 pixels (Haar); illumination as a quadratic, as the simulator and BaSiC assume.
    """
    if image.ndim != 2 or min(image.shape) < _MIN_SIDE:
        raise InputError(
            f"An image of shape {image.shape} cannot be judged: give (H, W) of at least 16 × 16."
        )
    x = image.astype(np.float32)
    if image.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError("An image with NaN or infinite pixels cannot be judged: export it again.")
    lower, level, upper = (float(q) for q in np.quantile(x[::2, ::2], (0.16, 0.5, 0.84)))
    spread = (upper - lower) / 2
    scale = max(abs(level), 1e-9)
    noise = _noise(x)
    return {
        "level": level,
        "spread": spread,
        "contrast": spread / scale,
        "black_share": float(np.count_nonzero(image <= 0)) / image.size,
        "saturated_share": _saturated_share(image),
        "noise": noise,
        **_sharpness(x, _at_least_rounding(noise, image.dtype)),
        **_unevenness(_illumination(x)),
        "skewness": _skewness(x[::2, ::2]),
        "anisotropy": _anisotropy(x),
    }


def content(image: np.ndarray, noise: float) -> float:
    """Detail of 4 px over the noise's, in the richest block of 32 px, so that a single cell is enough.

    Noise alone, on any quadratic light and with hot pixels, has 0.6 to 1.2; more than 2.8 is not told apart.
    """
    x = image.astype(np.float32)
    fine = _halved(_halved(x))
    v, u = (4 * (np.arange(n) + 0.5) / (side / _GRID) for n, side in zip(fine.shape, x.shape, strict=True))
    v, u = ((blocks - 0.5) * 2 / (_GRID - 1) - 1 for blocks in (v[:, None], u[None, :]))
    fine = fine - sum(c * term for c, term in zip(_illumination(x), _terms(u, v), strict=True))
    coarse = _halved(fine)
    cells = fine[: 2 * coarse.shape[0], : 2 * coarse.shape[1]]
    of_noise = _at_least_rounding(noise, image.dtype) / 4 * 0.75**0.5
    # Within ±3 standard deviations a hot pixel is not taken for a cell.
    detail = ((cells - coarse.repeat(2, axis=0).repeat(2, axis=1)) / of_noise).clip(-3, 3)
    energy = _halved(_halved(_halved(np.square(detail))))
    return float(np.sqrt(max(0.0, float(energy.max()) - 1)))


def debris_share(image: np.ndarray) -> float:
    """Share of the field in lumps of 8 px and more that are far darker or brighter than its light.

    Cells of bright field and DIC are lines of detail about the light's level, averaged away over 8 px; dust,
    threads and floating clumps are not. Far is `_DEBRIS_DEVIATIONS` robust standard deviations of such means.
    """
    x = image.astype(np.float32)
    coarse = _halved(_halved(_halved(x)))
    v, u = (8 * (np.arange(n) + 0.5) / (side / _GRID) for n, side in zip(coarse.shape, x.shape, strict=True))
    v, u = ((blocks - 0.5) * 2 / (_GRID - 1) - 1 for blocks in (v[:, None], u[None, :]))
    rest = coarse - sum(c * term for c, term in zip(_illumination(x), _terms(u, v), strict=True))
    rest = np.abs(rest - np.median(rest))
    usual = max(_MAD_TO_SD * float(np.median(rest)), 0.01 * abs(float(np.median(x))), 1e-9)
    return float((rest > _DEBRIS_DEVIATIONS * usual).mean())


def _noise(x: np.ndarray) -> float:
    """Second differences across second differences leave noise alone: flat, sloping, curved light cancel."""
    rows = x[:-2] - 2 * x[1:-1] + x[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    size = np.abs(mask[::2, ::2])
    limit = 2.5 * _MAD_TO_SD * float(np.median(size))
    if limit == 0.0:
        return float(size.mean(dtype=np.float64)) * float(np.sqrt(np.pi / 2)) / 6.0
    return float(size[size <= limit].mean(dtype=np.float64)) / _MEAN_BELOW_LIMIT / 6.0


def _saturated_share(image: np.ndarray) -> float:
    """Pixels at a maximum that cameras have; of a float image, at its own maximum if they form a plateau."""
    top = image.max()
    share = float(np.count_nonzero(image == top)) / image.size
    if image.dtype.kind == "f":
        return share if share > 1e-3 else 0.0
    return share if int(top) in _CAMERA_MAXIMA and image.min() < top else 0.0


def _sharpness(x: np.ndarray, noise: float) -> dict[str, float]:
    """Variance lost when 2 × 2 pixels are averaged, once to thrice; over all but the coarsest plus noise."""
    variances = [float(x.var(dtype=np.float64))]
    level = x
    for _ in range(5):
        level = _halved(level)
        variances.append(float(level.var(dtype=np.float64)))
    pixel_noise = noise**2
    lost = [
        max(0.0, before - after - 0.75 * pixel_noise / 4**k)
        for k, (before, after) in enumerate(pairwise(variances))
        if k < 4
    ]
    lost.append(max(0.0, variances[4] - variances[5]))
    total = sum(lost) + pixel_noise  # else a blank field's sharpness would be the noise of its noise
    shares = {f"sharpness_{2**k}": lost[k] / total for k in range(3)}
    return {**shares, "signal_to_noise": float(np.sqrt(sum(lost[:4]))) / noise}


def _at_least_rounding(noise: float, dtype: np.dtype) -> float:
    return max(noise, 1e-12 if dtype.kind == "f" else 12**-0.5)


def _skewness(x: np.ndarray) -> float:
    """Third moment of the standardised pixels, each within ±4 so that single bright ones weigh little."""
    deviation = float(x.std(dtype=np.float64))
    if deviation == 0:
        return 0.0
    return float(np.power(((x - x.mean(dtype=np.float64)) / deviation).clip(-4, 4), 3).mean(dtype=np.float64))


def _halved(x: np.ndarray) -> np.ndarray:
    height, width = (side // 2 for side in x.shape)
    if not height or not width:
        return x
    x = x[: 2 * height, : 2 * width]
    rows = x[::2] + x[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)


def _illumination(x: np.ndarray) -> np.ndarray:
    """Coefficients (of `_terms`) of a quadratic through the medians of 16 × 16 blocks; cells weigh less."""
    height, width = (side // _GRID for side in x.shape)
    step_y, step_x = max(1, height // 8), max(1, width // 8)
    cropped = x[: height * _GRID, : width * _GRID].reshape(_GRID, height, _GRID, width)
    medians = np.median(cropped[:, ::step_y, :, ::step_x], axis=(1, 3)).astype(np.float64).ravel()
    basis = _block_basis()
    weights = np.ones_like(medians)
    coefficients = np.zeros(basis.shape[1])
    for _ in range(3):
        root = np.sqrt(weights)
        coefficients = np.linalg.lstsq(basis * root[:, None], medians * root, rcond=None)[0]
        residual = np.abs(medians - basis @ coefficients)
        scale = _MAD_TO_SD * float(np.median(residual))
        weights = 1 / np.maximum(1.0, residual / max(2 * scale, 1e-12))
    return coefficients


def _unevenness(light: np.ndarray) -> dict[str, float]:
    """Relative range of the illumination, and of its linear part."""
    surface = _block_basis() @ light
    mean = max(abs(float(surface.mean())), 1e-9)
    slope = 2 * float(np.hypot(light[1], light[2]))
    return {"unevenness": float(surface.max() - surface.min()) / mean, "tilt": slope / mean}


def _terms(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    return np.ones_like(u), u, v, u * v, u**2, v**2


def _block_basis() -> np.ndarray:
    """`_terms` at the centres of the blocks, the first and the last at −1 and 1."""
    v, u = (grid.ravel() for grid in np.mgrid[-1 : 1 : _GRID * 1j, -1 : 1 : _GRID * 1j])
    return np.stack(_terms(u, v), axis=1)


def _anisotropy(x: np.ndarray) -> float:
    """Detail along one diagonal against the other; the shear of DIC lies on one of them."""
    smooth = _halved(x)
    down = float(np.square(smooth[1:, 1:] - smooth[:-1, :-1]).mean(dtype=np.float64))
    up = float(np.square(smooth[1:, :-1] - smooth[:-1, 1:]).mean(dtype=np.float64))
    return float(np.log((down + 1e-12) / (up + 1e-12)))
