"""Arrays of zarr v3 written shard by shard, each shard at once.

zarr-python writes the same files; its general machinery takes several times as long as the compression of an
image's few large chunks, so metadata come from it and the shards from here. Reading is zarr's.

Source: zarr v3's sharding codec (index at the end, crc32c),
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from upath import UPath

_ABSENT = 2**64 - 1
_LEVEL = 3


class ShardedArray:
    """A new array; `write` puts one shard, from several threads if one likes.

    Args:
        path: its folder; made if absent.
        shape: of the array.
        dtype: of the array.
        chunk: shape of a chunk.
        axes: a name for every axis.
        whole: what one shard holds, by default the whole array.
    """

    def __init__(
        self,
        path: UPath,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunk: tuple[int, ...],
        axes: tuple[str, ...],
        whole: tuple[int, ...] | None = None,
    ) -> None:
        self._path, self._chunk = path, chunk
        shards = tuple(-(-side // part) * part for side, part in zip(whole or shape, chunk, strict=True))
        path.mkdir(parents=True, exist_ok=True)
        (path / "zarr.json").write_bytes(_metadata(shape, dtype.str, chunk, shards, axes))
        self._counts = tuple(side // part for side, part in zip(shards, chunk, strict=True))

    def write(self, pixels: np.ndarray, at: tuple[int, ...] | None = None) -> None:
        """Write the shard at position `at` (in shards, by default the first); empty chunks are left out."""
        import google_crc32c

        index = np.full((*self._counts, 2), _ABSENT, "<u8")
        parts: list[bytes] = []
        size = 0
        for place in product(*(range(count) for count in self._counts)):
            data = self._encoded(pixels, place)
            if data is not None:
                index[place] = size, len(data)
                parts.append(data)
                size += len(data)
        if not parts:
            return
        table = index.tobytes()
        parts += [table, google_crc32c.value(table).to_bytes(4, "little")]
        file = self._path.joinpath("c", *(str(k) for k in at or (0,) * pixels.ndim))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(parts))

    def _encoded(self, pixels: np.ndarray, place: tuple[int, ...]) -> bytes | None:
        """One chunk, compressed; what sticks out of the image is zeros; None where there is nothing else."""
        block = pixels[
            tuple(slice(k * part, (k + 1) * part) for k, part in zip(place, self._chunk, strict=True))
        ]
        if not block.any():
            return None
        if block.shape != self._chunk:
            padded = np.zeros(self._chunk, block.dtype)
            padded[tuple(slice(0, side) for side in block.shape)] = block
            block = padded
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        return bytes(_codec().encode(block))


@lru_cache(maxsize=1)
def _codec() -> Any:
    from numcodecs import Blosc

    return Blosc(cname="zstd", clevel=_LEVEL, shuffle=Blosc.BITSHUFFLE)


@lru_cache(maxsize=64)
def _metadata(
    shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...], shards: tuple[int, ...], axes: tuple[str, ...]
) -> bytes:
    """The `zarr.json` that zarr writes for such an array."""
    import zarr
    from zarr.codecs import BloscCodec, BloscShuffle
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    kind = np.dtype(dtype)
    array = zarr.create_array(
        MemoryStore(),
        shape=shape,
        dtype=kind,
        chunks=chunk,
        shards=shards,
        compressors=[
            BloscCodec(cname="zstd", clevel=_LEVEL, shuffle=BloscShuffle.bitshuffle, typesize=kind.itemsize)
        ],
        dimension_names=axes,
        fill_value=0,
    )
    return array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
