"""Images in memory up to a limit, the others mapped from disk."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ImageCache:
    """Remembers images up to a number of bytes; above it the one unused for longest goes to a scratch folder.

    An image on disk is mapped, not read: a crop of it costs the pages that it lies on. The folder goes with
    the cache. Where the disk is full, images are made anew instead.

    Args:
        max_bytes: memory that the images may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._images: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._files: dict[Hashable, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._disk_full = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int]]:
        """Another process starts with an empty cache."""
        return type(self), (self.max_bytes,)

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The image called `key`, made by `make` if it is not remembered; it is read-only."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
            if key in self._files:
                return np.load(self._files[key], mmap_mode="r")
        image = make()
        image.flags.writeable = False
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self.used_bytes += image.nbytes
            while self.used_bytes > self.max_bytes and len(self._images) > 1:
                oldest, dropped = self._images.popitem(last=False)
                self.used_bytes -= dropped.nbytes
                self._keep_on_disk(oldest, dropped)
        return image

    def _keep_on_disk(self, key: Hashable, image: NDArray[Any]) -> None:
        if self._disk_full or key in self._files:
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cellabel-images-")
        path = Path(self._folder.name) / f"{len(self._files)}.npy"
        try:
            np.save(path, image)
        except OSError:
            self._disk_full = True
            path.unlink(missing_ok=True)
        else:
            self._files[key] = path
