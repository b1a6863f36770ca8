"""
Several processes on one port.

The parent binds and listens, and serves nothing itself.  Each worker is a fresh process that
inherits the listening socket; the kernel hands every connection to one of them.  A worker that dies
is replaced, later and later if it keeps dying.  On SIGTERM or SIGINT the parent stops the listening
for all, once nobody waits to be accepted, and has the workers finish what they have.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType

from uringio._sys.memory import pin

__all__ = [
    "REFUSED",
    "Supervisor",
    "Word",
    "stop_listening",
    "turn_away",
    "waits_to_be_accepted",
]

_SO_ATTACH_FILTER = 26
# struct sock_filter of <linux/filter.h>; the packet begins with the TCP header.
_DROP_SYN = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # of these SYN and ACK
        (0x15, 0, 1, 0x02),  # if only SYN is set ...
        (0x06, 0, 0, 0),  # ... drop,
        (0x06, 0, 0, 0xFFFFFFFF),  # else keep it whole
    )
)

# A worker that lived this long was sound; its death is no reason to wait.
_SOUND_SECONDS = 5.0
_BACKOFF_SECONDS = 0.1
_BACKOFF_SECONDS_MAX = 5.0
# How long connections that wait to be accepted may keep the end from beginning.
_BACKLOG_SECONDS = 1.0
_BACKLOG_TURN_SECONDS = 0.01
# What a worker gets beyond its own deadline before it is killed.
_KILL_SECONDS = 3.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


REFUSED = "!"  # begins a worker's word when it cannot begin

_WORD_BYTES_MAX = 2000


class Word:
    """
    A worker's one word to its parent: how it serves, or why it cannot.

    Args:
        fd: The pipe to the parent, None for a process that has none.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def give(self, text: str) -> bool:
        """Send it; False if there is no parent that listens, or no longer."""
        if self._fd is None:
            return False
        fd, self._fd = self._fd, None
        try:
            os.write(fd, text.encode("utf-8", "replace")[:_WORD_BYTES_MAX])
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


class _Worker:
    """A worker process; its pipe brings its `Word`."""

    def __init__(self, command: Sequence[str], listening: socket.socket) -> None:
        self.ready_fd, write_fd = os.pipe()
        self.born = time.monotonic()
        self.is_ready = False
        self.failure = ""
        try:
            self.process = subprocess.Popen(  # noqa: S603 (this very program)
                [*command, "--inherited-fd", str(listening.fileno()), "--ready-fd", str(write_fd)],
                stdin=subprocess.DEVNULL,
                pass_fds=(listening.fileno(), write_fd),
                # Ctrl-C in a terminal is for the parent, who tells the workers.
                process_group=0,
            )
        except BaseException:
            self.forget_pipe()
            raise
        finally:
            os.close(write_fd)

    def hear(self) -> str:
        """Take its word, and return how it serves; empty if it does not, see `failure`."""
        word = os.read(self.ready_fd, _WORD_BYTES_MAX).decode()
        self.forget_pipe()
        if word.startswith(REFUSED):
            self.failure = word.removeprefix(REFUSED)
            return ""
        self.is_ready = bool(word)
        return word

    def forget_pipe(self) -> None:
        """Close the pipe; safe to call twice."""
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1


class Supervisor:
    """
    The parent of workers.

    Args:
        command: What starts a worker; descriptors are added as options.
        count: How many there shall be.
        listening: The socket that they inherit.
        grace_seconds: What they are given to finish. [s]
        started: Called once all serve, with what they say of their backend.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        listening: socket.socket,
        *,
        grace_seconds: float,
        started: Callable[[str], None],
    ) -> None:
        self._command = command
        self._count = count
        self._listening = listening
        self._grace_seconds = grace_seconds
        self._started = started
        self._has_started = False
        self._workers: list[_Worker] = []
        self._restarts: list[float] = []
        self._deaths_in_row = 0
        self._signals_count = 0
        self._told_count = 0
        self._kill_at: float | None = None

    def run(self) -> int:
        """
        Keep the workers running until a signal ends them; return the exit status.

        Raises:
            OSError: The first workers could not be started.
        """
        with self._signals() as wake_fd:
            try:
                for _ in range(self._count):
                    self._workers.append(_Worker(self._command, self._listening))
                while self._workers or self._restarts:
                    self._wait(wake_fd)
                    if (status := self._bury()) is not None:
                        return status
                    self._obey()
            finally:
                for worker in self._workers:
                    worker.process.kill()
                    worker.process.wait()
                    worker.forget_pipe()
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Generator[int, None, None]:
        """Count signals to end, and have all of them wake a descriptor."""
        wake_fd, write_fd = os.pipe()
        os.set_blocking(wake_fd, False)
        os.set_blocking(write_fd, False)
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        fd_before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        try:
            yield wake_fd
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake_fd)
            os.close(write_fd)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals_count += 1

    def _wait(self, wake_fd: int) -> None:
        """Sleep until a signal comes, a worker is ready, or a time has come."""
        now = time.monotonic()
        times = [*self._restarts, *([] if self._kill_at is None else [self._kill_at])]
        timeout_ms = max(0, int((min(times) - now) * 1000) + 1) if times else None
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        for worker in self._workers:
            if worker.ready_fd >= 0:
                poll.register(worker.ready_fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout_ms)}
        if wake_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_fd, 4096)
        for worker in self._workers:
            if worker.ready_fd in ready and (how := worker.hear()):
                self._greet(how)
        if self._restarts and self._kill_at is None and min(self._restarts) <= time.monotonic():
            self._restarts.remove(min(self._restarts))
            try:
                self._workers.append(_Worker(self._command, self._listening))
            except OSError as error:
                # No room for a process now: the others go on, and it is tried again.
                print(
                    f"uringio serve: no worker could be started ({error.strerror}); "
                    f"another try in {_BACKOFF_SECONDS_MAX:g} s",
                    file=sys.stderr,
                    flush=True,
                )
                self._restarts.append(time.monotonic() + _BACKOFF_SECONDS_MAX)

    def _greet(self, how: str) -> None:
        if not self._has_started and all(worker.is_ready for worker in self._workers):
            self._has_started = True
            self._started(how)

    def _bury(self) -> int | None:
        """Look for workers that ended; return an exit status when there is no point in going on."""
        for worker in list(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            self._workers.remove(worker)
            if worker.ready_fd >= 0:
                worker.hear()
            if self._kill_at is not None:
                continue
            if not self._has_started:
                if worker.failure:  # once, however many have met it
                    print(f"uringio serve: {worker.failure}", file=sys.stderr)
                return code if code > 0 else 1
            now = time.monotonic()
            self._deaths_in_row = (
                0 if now - worker.born > _SOUND_SECONDS else self._deaths_in_row + 1
            )
            delay = 0.0
            if self._deaths_in_row:
                doublings = min(self._deaths_in_row - 1, 10)
                delay = min(_BACKOFF_SECONDS * 2**doublings, _BACKOFF_SECONDS_MAX)
            how = f"signal {-code}" if code < 0 else f"status {code}"
            if worker.failure:
                how += f": {worker.failure}"
            print(
                f"uringio serve: worker {worker.process.pid} ended ({how}); "
                f"another starts in {delay:g} s",
                file=sys.stderr,
                flush=True,
            )
            self._restarts.append(now + delay)
        return None

    def _obey(self) -> None:
        """Do what the signals so far have asked for."""
        if self._signals_count > self._told_count:
            if self._kill_at is None:
                self._restarts.clear()
                turn_away(self._listening)
                until = time.monotonic() + _BACKLOG_SECONDS
                while True:
                    time.sleep(_BACKLOG_TURN_SECONDS)
                    if not waits_to_be_accepted(self._listening) or time.monotonic() > until:
                        break
                stop_listening(self._listening)
                self._kill_at = time.monotonic() + self._grace_seconds + _KILL_SECONDS
            # Another signal the second time: two of one kind may arrive as one.
            number = signal.SIGTERM if self._told_count == 0 else signal.SIGINT
            self._told_count = self._signals_count
            for worker in self._workers:
                worker.process.send_signal(number)
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()


def turn_away(listening: socket.socket) -> None:
    """
    Let no further connection begin, so that those which wait to be accepted come to an end.

    The kernel resets what waits on a socket that stops to listen, and something always might.  So
    first a packet filter drops what opens a connection (SYN without ACK), and nothing else: the
    client's kernel tries again after a second, and is then refused.  Some kernels keep filters to
    administrators (6.18 does, earlier ones did not); there the backlog shrinks to one, and one
    connection may come between the last look at it and the end.

    Source: socket(7), SO_ATTACH_FILTER; listen(2).
    """
    if sys.platform == "linux":
        program, length, _pinned = pin(_DROP_SYN)
        with contextlib.suppress(OSError):
            listening.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length // 8, program)
            )
            return
    with contextlib.suppress(OSError):
        listening.listen(0)


def waits_to_be_accepted(listening: socket.socket) -> bool:
    """Tell whether a connection waits on a listening socket."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def stop_listening(listening: socket.socket) -> bool:
    """
    Stop listening, in every process that has the socket; False where systems cannot, as the BSDs.

    Accepts that are under way end with EINVAL rather than being cancelled: a cancelled one might
    just have got a connection.
    """
    try:
        listening.shutdown(socket.SHUT_RD)
    except OSError:
        return False
    return True
