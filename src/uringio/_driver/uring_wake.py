"""
The pipe that wakes the io_uring driver: always read by its ring, written to from anywhere.

A pipe and not an eventfd, since `signal.set_wakeup_fd` writes single bytes, which that refuses.
"""

from threading import RLock

from uringio._sys.system import System

__all__ = ["WakePipe"]


class WakePipe:
    """
    The pipe of one ring.

    Attributes:
        read_fd: What the ring reads.
        write_fd: Where single bytes wake the driver.
        memory: What it reads into, for as long as the ring lives.
        armed: Whether the ring reads.
        lock: Held while somebody writes, and to set `closed`: who wakes must not find the number
            given to something else.  Reentrant: for signal handlers.
        closed: Whether nobody shall write any more.
    """

    __slots__ = ("_system", "_woken", "armed", "closed", "lock", "memory", "read_fd", "write_fd")

    def __init__(self, system: System) -> None:
        self._system = system
        self.read_fd, self.write_fd = system.pipe()
        system.set_blocking(self.read_fd, True)
        self.memory = system.allocate(4096)
        self.lock = RLock()
        self._woken = self.armed = self.closed = False

    def wake(self) -> None:
        """Have the ring's read complete; from any thread or signal handler."""
        if not self._woken and not self.closed:
            with self.lock:
                if not self.closed:
                    self._woken = True
                    self._system.poke(self.write_fd)

    def heard(self) -> None:
        """Note that the read has completed, and let the next writer write."""
        self._woken = self.armed = False

    def silence(self) -> None:
        """Let nobody write any more, once who is writing has written."""
        with self.lock:
            self.closed = True

    def close(self) -> None:
        """Close both ends."""
        self._system.close(self.read_fd)
        self._system.close(self.write_fd)
