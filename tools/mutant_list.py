"""
The mutants: wrong versions of the library, each by one line, and the tests that must notice.

Fields: file under ``src/uringio``; the text as it stands, found once in that file; what takes its
place; why that is wrong; test files under ``tests``, the likeliest to notice first.
"""

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One wrong version."""

    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]


_U, _R, _F = "_driver/uring.py", "_driver/readiness.py", "_driver/file_calls.py"
_L, _P, _B = "_own/loans.py", "_own/pool.py", "_own/buffer.py"
_Z, _T, _S = "_driver/zero_copy.py", "_driver/timers.py", "_driver/uring_leases.py"
_M = "_driver/uring_many.py"
_O, _D, _Q = "_driver/outcome.py", "_driver/descriptors.py", "_ring/queue.py"

_CANCEL = ("driver/test_cancel.py",)
_TURNS = ("driver/test_turns.py", "driver/test_contract.py")
_LIMITS = ("driver/test_uring_limits.py", "driver/test_turns.py", "driver/test_contract.py")
_MOMENTS = ("driver/test_moments.py", "driver/test_moments_ending.py")
_ENDING = ("driver/test_moments_ending.py",)
_END = ("driver/test_end.py", "driver/test_contract.py")
_ZERO = ("driver/test_zero_copy.py", "surface/test_zero_copy.py")
_MANY = ("driver/test_many.py",)
_LOANS = ("own/test_loans.py", "own/test_buffer.py", "surface/test_moves.py")
_POOL = ("own/test_pool.py", "surface/test_buffer_pool.py")
_LEASES = ("surface/test_leases.py",)
_FILES = ("driver/test_files.py", "driver/test_names.py", "driver/test_moments_ending.py")
_INJECTED = ("driver/test_injected.py",)
_HALF_CLOSED = ("driver/test_half_closed.py",)
_MESSAGES = ("lowlevel/test_messages.py",)
_PROVIDED = ("lowlevel/test_provided.py",)
_EPOLL = ("driver/test_epoll.py", "driver/test_contract.py")

MUTANTS: tuple[Mutant, ...] = (
    # --- ownership ---------------------------------------------------------------------------
    Mutant(_L, "        if self.key == key:\n            return\n", "        return\n",
           "no handle is ever refused", _LOANS),
    Mutant(_L, "        self.key = 1 - self.key\n", "        self.key = -self.key\n",
           "the key is not renewed at claim: the old handle opens it again", _LOANS),
    Mutant(_L, "        self.views -= 1\n", "        self.views = 0\n",
           "the first view to end ends the borrow", _LOANS),
    Mutant(_L, "        self.views += 1\n", "        self.views = 1\n",
           "views are not counted", _LOANS),
    Mutant(_L, "            raise DoubleReleaseError(\"this buffer was released already\")\n",
           "            return\n", "a double release passes", _LOANS),
    Mutant(_P, "        self._back.append(loan)\n", "        pass\n",
           "a released buffer is lost to its pool", _POOL),
    Mutant(_L, "or mover.finish != self.take or", "or",
           "an op that is used for another buffer counts as this one's", _LOANS),
    Mutant(_L, "        if self.state != State.LENT and self.state != State.RETURNED:\n",
           "        if False:\n", "a result may be taken twice", _LOANS),
    Mutant(_L, "        self.state = State.LENT\n", "        self.state = State.IDLE\n",
           "lending does not say so", _LOANS),
    Mutant(_P, "            offset, slab = free.pop()\n", "            offset, slab = free[-1]\n",
           "the pool hands out the same piece twice", _POOL),
    Mutant(_P, "            slab.out_count -= 1\n", "            pass\n",
           "slabs never count as whole again", _POOL),
    Mutant(_P, "        if loan.memory is not self.memory:\n", "        if False:\n",
           "another pool's buffer is taken in", _POOL),
    Mutant(_P, "            self._out_bytes += wanted\n", "            pass\n",
           "what is out is not counted", _POOL),
    Mutant(_P, "            if not free and not self._cut(wanted):\n",
           "            if not free:\n", "no slab is ever cut", _POOL),
    Mutant("_own/fd.py", "        number, self._fd = self.number, -1\n",
           "        number = self.number\n", "a descriptor is closed twice",
           ("surface/test_closing.py",)),
    Mutant("_own/fd.py", "                self.close()  # also where warnings are errors\n",
           "                pass\n", "a forgotten descriptor stays open",
           ("surface/test_closing.py", "surface/test_misuse.py", "surface/test_opening.py")),
    # --- leases and provided buffers ---------------------------------------------------------
    Mutant(_S, "                self._spares.append(bid)\n", "                pass\n",
           "a buffer that came back is lost", _LEASES),
    Mutant(_S, "        del self._spares[-1]\n", "        pass\n",
           "one spare stands in for two leases", _LEASES),
    Mutant(_S, "        self._out[bid] = gone\n", "        pass\n",
           "a lease is not counted, and its end not heard", _LEASES),
    Mutant(_S, "        if self.is_awaited:\n            self._wake()\n", "        pass\n",
           "who waits for a lease to end is not woken", _LEASES),
    Mutant(_S, "not self._spares and bool(op.hold)", "not self._spares",
           "streams without leases wait for those of others", _LEASES),
    Mutant(_U, "                    if held_at[slot] != bid:\n", "                    if False:\n",
           "buffers go back under wrong numbers", _LIMITS + _LEASES),
    Mutant(_U, "        buffer_tail_word[0] = buffer_tail & 0xFFFF\n", "        pass\n",
           "buffers are not given back to the kernel", _LIMITS),
    Mutant(_U, "(res == -errno.ENOBUFS and code in (RECV, RECV_LEASE))", "False",
           "a starved receive fails", _LIMITS),
    # --- the io_uring driver -----------------------------------------------------------------
    Mutant(_U, "            addr = locate(op)\n        if tail", "            addr = id(memory)\n"
           "        if tail", "memory is not pinned", _TURNS),
    Mutant(_U, "        use = number = use + 1\n        pack(sqes, (slot & sq_mask) << 6, head, "
           "op.fd", "        number = use\n        pack(sqes, (slot & sq_mask) << 6, head, op.fd",
           "two ops have one number: a completion finds the wrong one", _TURNS),
    Mutant(_U, "        if tail == limit:\n            enqueue", "        if False:\n"
           "            enqueue", "a full queue is written over", _LIMITS),
    Mutant(_U, "        if tail != slot:  # a signal handler has taken it\n", "        if False:\n",
           "a handler's submission is written over", _MOMENTS),
    Mutant(_U, "        elif user_data != _USE_NOBODY:\n", "        elif False:\n",
           "strays are not counted", _INJECTED),
    Mutant(_U, "                    elif op.state == SUBMITTED and res >= 0:\n",
           "                    elif res >= 0:\n", "a cancelled receive delivers data", _CANCEL),
    Mutant(_U, "            settle_failed(op, -res)\n        held",
           "            settle_failed(op, 5)\n        held", "every failure is EIO", _TURNS),
    Mutant(_U, "            op.state = DONE  # close(2): the descriptor is gone all the same\n",
           "            settle_failed(op, 4)\n", "EINTR of a close is a failure", _INJECTED),
    Mutant("_driver/uring_slots.py",
           "                del in_flight[number]\n                op.standing = False\n",
           "                op.standing = False\n", "a withdrawn op stays in flight", _CANCEL),
    Mutant(_U, "            ending[op.use] = op\n            op.state = CANCELLING\n"
           "            op.error = reason\n", "            op.state = CANCELLING\n"
           "            op.error = reason\n            ending[op.use] = op\n"
           "            del ending[op.use]\n", "a cancellation that is broken off is forgotten",
           _ENDING),
    Mutant(_U, "code == o.CLOSE or op in threads or (", "op in threads or (",
           "a close is withdrawn, and its descriptor leaks", _CANCEL + _END),
    Mutant(_U, "if res == -errno.ENOENT and sends.is_sought(target) and", "if", "a request "
           "that has ended is asked to stop for ever", _INJECTED),
    Mutant("_driver/uring_settles.py", "op.value = res & (op.flags | ALWAYS_TOLD) or None",
           "op.value = res", "a poll tells of what nobody asked for", _HALF_CLOSED),
    Mutant("_driver/uring_polls.py", "            op.code = POLL\n            op.len = 0\n",
           "            op.code = POLL\n", "a poll's next use is a multishot one", _HALF_CLOSED),
    Mutant(_U, "                completions = chain([(user_data, res, flags)], completions)\n",
           "                pass\n", "the completion at which a handler raised is lost", _MOMENTS),
    Mutant(_U, "            if not pipe.closed:\n                arm_wake()\n",
           "            pass\n", "a driver can be woken once", _TURNS),
    Mutant(_U, "        owner_thread = -1  # no thread has this number\n", "        pass\n",
           "a driver that is closed, or forked, is not poisoned", _END),
    Mutant(_U, "        pipe.closed = True\n\n        def refuse", "        def refuse",
           "closing and waking do not see that it is closed", _END),
    Mutant(_U, "        leak(len(in_flight) + stranded_count, dict(in_flight), buffers, "
           "pipe.memory, threads)\n", "        pass\n",
           "memory that the kernel still has is freed", _INJECTED),
    Mutant(_U, "                push(CANCEL_HEAD, -1, 0, 0, CANCEL_EVERYTHING, _USE_NOBODY)\n",
           "                pass\n", "closing cancels nothing", _END),
    Mutant(_U, "        if live_timers:\n            timers.expire(clock(), deliver)\n", "",
           "deadlines never come", _TURNS),
    Mutant(_U, "wait_count or sq_flags[0] or tail", "wait_count or tail",
           "completions that the kernel holds back are not fetched", _LIMITS),
    # --- the ring ----------------------------------------------------------------------------
    Mutant(_Q, "        storage += wrapped\n        cq_head[0] = tail\n",
           "        storage += wrapped\n",
           "the same completions are taken again", ("ring/test_reap.py",)),
    Mutant(_Q, "        storage += wrapped\n", "        pass\n",
           "completions behind the wrap are lost", ("ring/test_reap.py",)),
    Mutant(_Q, "    if ring.cq_overflow[0]:\n", "    if False:\n",
           "completions that the kernel dropped are not missed",
           ("ring/test_wait.py", "ring/test_reap.py")),
    Mutant(_Q, "        if count <= entries:\n", "        if True:\n",
           "a tail that a handler has overtaken is stored",
           _INJECTED),
    # --- sends without a copy ----------------------------------------------------------------
    Mutant(_Z, "            self._answers[number] = res\n            return True\n",
           "            self._answers[number] = res\n", "memory is let go of at the first "
           "completion", _ZERO),
    Mutant(_Z, "                return False\n            res = self._answers[number]\n",
           "                return False\n", "the notification's result is taken for the send's",
           _ZERO),
    Mutant(_U, "else sends.abort)(op)\n", "else bool)(op)\n",
           "cancelling waits for a peer that never answers", _ZERO),
    # --- many reads as one -------------------------------------------------------------------
    Mutant(_M, "        if block is None or not block.is_free or", "        if block is None or",
           "a block is filled for another batch before it is laid", _MANY),
    Mutant(_M, "            if op.todo:\n                self._go_on(op, self._some(op))\n", "",
           "a batch that a handler broke off is never laid", _MANY),
    Mutant(_M, "                if ring.cq_head[0] == head:", "                if op.missing:",
           "completions are passed over that a handler has taken", _MANY),
    # --- ends and orphans --------------------------------------------------------------------
    Mutant(_O, "                op.owner.orphan(op, value)\n", "                pass\n",
           "what a cancelled op had got is dropped", _CANCEL),
    Mutant(_O, "                system.close(value)\n", "                pass\n",
           "a late descriptor is not closed", _CANCEL),
    Mutant(_O, "    op.memory = None\n    op.hold = None\n    op.state = DONE\n\n\ndef settle_done",
           "    op.state = DONE\n\n\ndef settle_done", "cancelled ops keep their memory", _CANCEL),
    Mutant(_O, "        op.error = make_cancelled(op)\n", "        pass\n",
           "a cancelled op looks like a success", _CANCEL),
    Mutant(_O, "        op.done_bytes += op.len\n", "        pass\n",
           "what a cancelled send had handed over is not told", _CANCEL),
    # --- threads, timers, epoll --------------------------------------------------------------
    Mutant(_F, "        if op.fd in self._busy():\n", "        if False:\n",
           "a descriptor is closed under a thread's call", _FILES),
    Mutant(_F, "        if deserted and op.code in MAKES_DESCRIPTOR and res >= 0:\n",
           "        if False:\n", "what a thread opens after the end stays open", _FILES + _END),
    Mutant(_F, "self._left[op.use] = op.fd",
           "pass", "an open that nobody waits for leaks its descriptor", _FILES),
    Mutant(_T, "            if use in live:\n", "            if True:\n",
           "cancelled timers expire", _TURNS + _CANCEL),
    Mutant(_T, "                del live[use]\n", "                pass\n",
           "a timer expires again and again", _TURNS),
    Mutant(_R, "            suspect = True\n            raise\n", "            raise\n",
           "edges that an exception swallowed are not looked for", _EPOLL + _ENDING),
    Mutant(_R, "            cancelling[op.use] = op  # until it is through: a signal handler may "
           "raise in between\n            op.state = CANCELLING\n",
           "            op.state = CANCELLING\n            cancelling[0] = op\n",
           "a cancellation is kept under a wrong number", _ENDING),
    Mutant(_R, "                if not 0 < got < descriptor.size or not descriptor.exact:\n",
           "                if False:\n", "what a read has left is not looked for", _EPOLL),
    Mutant(_D, "            descriptor.deaf = not room\n", "",
           "the poller does not tell of room that is waited for", _EPOLL),
    Mutant(_D, "            room = bool(descriptor.writers or descriptor.pollers)\n",
           "            room = False\n", "the poller forgets who waits for room", _EPOLL),
    Mutant(_R, "                    unserved = True\n", "                    pass\n",
           "the edges behind a long read are forgotten", _EPOLL),
    Mutant(_D, "        self._strand(fd)\n\n    def unwatch", "        pass\n\n    def unwatch",
           "ops on a closed descriptor wait for ever", _EPOLL),
    Mutant(_D, "            self.departed.remove(fd)\n            self._poller.unwatch(fd)\n",
           "            self.departed.remove(fd)\n", "a number that is used anew is not watched",
           _EPOLL),
    Mutant(_D, "            if op.state != SUBMITTED or self._try_reader(op, descriptor):\n",
           "            if self._try_reader(op, descriptor):\n",
           "an op that is over is attempted again", _EPOLL + _ENDING),
    # --- the bare ring -----------------------------------------------------------------------
    Mutant("lowlevel/_waits.py",
           "            known = name if name in flight else renamed.get(name)\n",
           "            known = name\n", "a message is taken for a completion", _MESSAGES),
    Mutant("lowlevel/_aliases.py", "            off ^= secret\n", "            pass\n",
           "a poll is renamed to a name that others know", _MESSAGES),
    Mutant("lowlevel/_ring.py", "self._renamed.get(old, old)\n", "old\n",
           "a poll that is renamed twice stays in flight", _MESSAGES),
    Mutant("lowlevel/_provided.py", "            theirs.unmap()\n", "            pass\n",
           "entries of the kernel's stay mapped", _PROVIDED),
    Mutant("lowlevel/_registrations.py",
           "        before = self._usable().buffer_rings.get(group) if self._flight else None\n",
           "        before = None\n",
           "a buffer that a request has taken goes with its group's number", _PROVIDED),
    Mutant("lowlevel/_zero_copy.py", " & _PLACE_MASK | self._token\n", " & _PLACE_MASK\n",
           "a place goes back without its area", ("lowlevel/test_zero_copy.py",)),
    Mutant("_ring/waits.py",
           "    flags = k.IORING_ENTER_EXT_ARG | (k.IORING_ENTER_ABS_TIMER if absolute else 0)\n",
           "    flags = k.IORING_ENTER_EXT_ARG | k.IORING_ENTER_ABS_TIMER\n",
           "a duration is taken for a moment of long ago", ("lowlevel/test_waits.py",)),
)  # fmt: skip
