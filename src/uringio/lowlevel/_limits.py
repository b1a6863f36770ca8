"""Who may do what through a ring: credentials, and what is allowed at all."""

from collections.abc import Iterable, Sequence

from ._judges import filter_argument, restriction_rows
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
        rows = restriction_rows(ops, register_ops, flags_allowed, flags_required)
        core = self._open()
        if core.fd < 0:
            self._check_thread()
        call(core, RegisterOp.RESTRICTIONS, b"".join(rows), len(rows))
        self._flags_required = flags_required

    def register_bpf_filter(
        self,
        opcode: int,
        program: Sequence[tuple[int, int, int, int]],
        *,
        flags: int = 0,
        pdu_bytes: int = 0,
    ) -> None:
        """
        Have a program judge every request of one operation; what it denies gets EACCES.

        It is a classic BPF program that may load words of the request's context (user_data at 0,
        operation and `SqeFlags` at 8, and from 16 on what the operation tells of itself: SOCKET its
        family, type and protocol, OPENAT2 its flags, mode and resolve).  It returns 0 to deny.
        Filters add up: all of an operation must allow.

        Args:
            opcode: The `Opcode`.
            program: Its instructions, as (code, jump if true, jump if false, k).
            flags: `BpfFilterFlags`.
            pdu_bytes: How much the program knows the operation to tell of itself. [bytes]

        Raises:
            OpError: EINVAL, the program is not sound, or the kernel is too old.
            ValueError: No kernel could take the program.

        Kernel: 7.0.  Twin: io_uring_register_bpf_filter.  Lifetime: copied by the kernel.
        """
        core = self._usable()
        argument, _keep = filter_argument(opcode, program, flags, pdu_bytes)
        call(core, RegisterOp.BPF_FILTER, argument, 1)

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
