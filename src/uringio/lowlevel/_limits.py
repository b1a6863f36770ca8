"""Who may do what through a ring: credentials, and what is allowed at all."""

from collections.abc import Iterable

from uringio._sys import constants as k
from uringio._sys.layouts import RESTRICTION
from uringio.errors import UsageError

from ._opcodes import RegisterOp
from ._registering import Registering, call

__all__ = ["Limits"]


class Limits(Registering):
    """The limits of a `Ring`."""

    _enabled: bool
    # What `close` has to set as well, or its own request would be refused.
    _flags_required = 0

    def register_personality(self) -> int:
        """
        Keep the caller's present credentials, and return their number for `Ring.personality`.

        Kernel: 5.6.  Twin: io_uring_register_personality.
        """
        return self.register(RegisterOp.PERSONALITY)

    def unregister_personality(self, number: int) -> None:
        """Forget credentials.  Kernel: 5.6.  Twin: io_uring_unregister_personality."""
        self.register(RegisterOp.UNREGISTER_PERSONALITY, b"", number)

    def register_restrictions(
        self,
        *,
        ops: Iterable[int] = (),
        register_ops: Iterable[int] = (),
        flags_allowed: int = 0,
        flags_required: int = 0,
    ) -> None:
        """
        Allow nothing but this, once the ring is enabled; anything else gets EACCES.

        Args:
            ops: `Opcode`s.
            register_ops: `RegisterOp`s.
            flags_allowed: `SqeFlags` that requests may have beside the required ones.
            flags_required: `SqeFlags` that every request must have.

        The ring must have been made with `SetupFlags.R_DISABLED`; once only.
        Kernel: 5.10.  Twin: io_uring_register_restrictions.
        """
        rows = [RESTRICTION.pack(k.IORING_RESTRICTION_SQE_OP, one) for one in ops]
        rows += [RESTRICTION.pack(k.IORING_RESTRICTION_REGISTER_OP, one) for one in register_ops]
        if flags_allowed:
            rows.append(RESTRICTION.pack(k.IORING_RESTRICTION_SQE_FLAGS_ALLOWED, flags_allowed))
        if flags_required:
            rows.append(RESTRICTION.pack(k.IORING_RESTRICTION_SQE_FLAGS_REQUIRED, flags_required))
        if not rows:
            raise UsageError("a ring that is allowed nothing is of no use: name operations")
        core = self._open()
        if core.fd < 0:
            self._check_thread()
        call(core, RegisterOp.RESTRICTIONS, b"".join(rows), len(rows))
        self._flags_required = flags_required

    def enable(self) -> None:
        """
        Start a ring that was made with `SetupFlags.R_DISABLED`; it now is the calling thread's.

        With REGISTERED_FD_ONLY that can only be the thread that made it.

        Kernel: 5.10.  Twin: io_uring_enable_rings.
        """
        core = self._open()
        if core.fd < 0:
            self._check_thread()
        call(core, RegisterOp.ENABLE_RINGS)
        self._enabled = True
        self._take_over()
