"""Arrays of zarr v3 written shard by shard, each shard at once.

zarr-python writes the same files; its general machinery takes several times as long as the compression of an
image's few large chunks, so metadata come from it and the shards from here. Reading is zarr's.

Source: zarr v3's sharding codec (index at the end, crc32c),
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any, Literal

import numpy as np
from upath import UPath

_ABSENT = 2**64 - 1
Compressor = Literal["zstd", "lz4"]
FULL: tuple[Compressor, int] = ("zstd", 3)
"""Compressor and effort of images and labels."""
COARSE: tuple[Compressor, int] = ("lz4", 5)
"""Of coarser levels, which only viewers read: a third of the time, and a tenth larger."""


class ShardedArray:
    """A new array; `write` puts one shard, from several threads if one likes.

    Args:
        path: its folder; made if absent.
        shape: of the array.
        dtype: of the array.
        chunk: shape of a chunk.
        axes: a name for every axis.
        whole: what one shard holds, by default the whole array.
        compressor: of Blosc, and its effort.
    """

    def __init__(
        self,
        path: UPath,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunk: tuple[int, ...],
        axes: tuple[str, ...],
        whole: tuple[int, ...] | None = None,
        compressor: tuple[Compressor, int] = FULL,
    ) -> None:
        self._path, self._chunk, self._compressor = path, chunk, compressor
        shards = tuple(-(-side // part) * part for side, part in zip(whole or shape, chunk, strict=True))
        path.mkdir(parents=True, exist_ok=True)
        (path / "zarr.json").write_bytes(_metadata(shape, dtype.str, chunk, shards, axes, compressor))
        self._counts = tuple(side // part for side, part in zip(shards, chunk, strict=True))

    def write(self, pixels: np.ndarray | list[np.ndarray], at: tuple[int, ...] | None = None) -> None:
        """Write one shard; empty chunks are left out.

        Args:
            pixels: what it holds; or the parts of that along the first axis, of which a chunk holds one.
            at: its position, in shards; by default the first.
        """
        index = np.full((*self._counts, 2), _ABSENT, "<u8")
        parts: list[bytes] = []
        size = 0
        for place in product(*(range(count) for count in self._counts)):
            data = self._encoded(pixels, place)
            if data is not None:
                part = [data, _checksum(data)]
                index[place] = size, sum(map(len, part))
                parts += part
                size += sum(map(len, part))
        if not parts:
            return
        table = index.tobytes()
        parts += [table, _checksum(table)]
        file = self._path.joinpath("c", *(str(k) for k in at or (0,) * len(self._chunk)))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            out.writelines(parts)

    def _encoded(self, pixels: np.ndarray | list[np.ndarray], place: tuple[int, ...]) -> bytes | None:
        """One chunk, compressed; what sticks out of the image is zeros; None where there is nothing else."""
        where = tuple(slice(k * part, (k + 1) * part) for k, part in zip(place, self._chunk, strict=True))
        block = pixels[where] if isinstance(pixels, np.ndarray) else pixels[place[0]][where[1:]][None]
        if not block.flat[0] and not block.any():
            return None
        if block.shape != self._chunk:
            padded = np.zeros(self._chunk, block.dtype)
            padded[tuple(slice(0, side) for side in block.shape)] = block
            block = padded
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        return bytes(_codec(*self._compressor).encode(block))


def _checksum(data: bytes) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(4, "little")


@lru_cache(maxsize=2)
def _codec(name: Compressor, effort: int) -> Any:
    from numcodecs import Blosc

    return Blosc(cname=name, clevel=effort, shuffle=Blosc.BITSHUFFLE)


@lru_cache(maxsize=64)
def _metadata(
    shape: tuple[int, ...],
    dtype: str,
    chunk: tuple[int, ...],
    shards: tuple[int, ...],
    axes: tuple[str, ...],
    compressor: tuple[Compressor, int],
) -> bytes:
    """The `zarr.json` that zarr writes for such an array."""
    import zarr
    from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    kind, (name, effort) = np.dtype(dtype), compressor
    array = zarr.create_array(
        MemoryStore(),
        shape=shape,
        dtype=kind,
        chunks=chunk,
        shards=shards,
        compressors=[
            BloscCodec(cname=name, clevel=effort, shuffle=BloscShuffle.bitshuffle, typesize=kind.itemsize),
            Crc32cCodec(),  # so that who reads a damaged chunk is told
        ],
        dimension_names=axes,
        fill_value=0,
    )
    return array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
