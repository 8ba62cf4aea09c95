"""What one thread waits for and others ring: a raw lock, because Ctrl-C during the wait must come out of it as it is.

(`threading.Event` waits inside a `Condition`, whose bookkeeping an interrupt turns into a `RuntimeError`.)
"""

from __future__ import annotations

import threading


class Alarm:
    """Rings for one waiting thread; a ring that comes before the wait is kept, several are one."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Ends the wait, or the next one."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it has been rung already

    def wait(self, timeout: float | None) -> bool:
        """Whether it rang within that many seconds; that ring is spent."""
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
