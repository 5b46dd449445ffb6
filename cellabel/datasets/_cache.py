"""Images in memory, the least recently used of them dropped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from numpy.typing import NDArray


class ImageCache:
    """Remembers images up to a number of bytes; above it the one unused for longest goes.

    Args:
        max_bytes: memory that the images may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._images: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The image called `key`, made by `make` if it is not remembered; it is read-only."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        image = make()
        image.flags.writeable = False
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self.used_bytes += image.nbytes
            while self.used_bytes > self.max_bytes and len(self._images) > 1:
                self.used_bytes -= self._images.popitem(last=False)[1].nbytes
        return image
