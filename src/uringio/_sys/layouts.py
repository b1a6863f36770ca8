"""
Byte layouts of what crosses the kernel's border, as `struct.Struct`s.

Native byte order, standard sizes (``=``): the kernel lays these structures out by explicit width
and aligns every member by hand, so they are the same on every 64-bit Linux.  Sizes and offsets are
pinned by `tests/sys/test_layouts.py` and compared with the C compiler's where one is present.
"""

from struct import Struct
from typing import Final, Protocol

# io_uring_sqe, the shape that serves all operations of this library.
#   I  @0   opcode | flags << 8 | ioprio << 16
#   i  @4   fd
#   Q  @8   off / addr2
#   Q  @16  addr / splice_off_in
#   I  @24  len
#   I  @28  the operation's own flags word
#   Q  @32  user_data
#   H  @40  buf_index / buf_group          (personality @42 stays 0)
#   I  @44  splice_fd_in / file_index / addr_len
#   16 zero bytes @48: addr3 and padding; most operations answer EINVAL to anything else.
# `Struct.pack_into` zeroes pad bytes itself, which is why fewer arguments are also the faster form:
# 91 ns against 120 ns for all fourteen fields (CPython 3.11).
SQE: Final = Struct("=IiQQIIQH2xI16x")

# The same up to user_data, which is all that the drivers' hot closures need: buffer group 0.
SQE_SHORT: Final = Struct("=IiQQIIQ24x")


class PackInto(Protocol):
    """A bound `Struct.pack_into`."""

    def __call__(self, buffer: memoryview, offset: int, /, *values: int) -> object: ...


# io_uring_cqe: user_data, res, flags.
CQE: Final = Struct("=QiI")

# io_uring_params: sq_entries cq_entries flags sq_thread_cpu sq_thread_idle features wq_fd resv[3],
# then io_sqring_offsets and io_cqring_offsets, each seven or eight u32 and a u64.
PARAMS: Final = Struct("=7I12x8IQ8IQ")

# io_uring_getevents_arg: sigmask, sigmask_sz, min_wait_usec, ts.
GETEVENTS_ARG: Final = Struct("=QIIQ")

# __kernel_timespec: tv_sec, tv_nsec.
TIMESPEC: Final = Struct("=qq")

# io_uring_buf without `resv`: in entry 0 those two bytes are the ring's tail.
BUF: Final = Struct("=QIH")
BUF_SIZE: Final = 16
BUF_RING_TAIL_OFFSET: Final = 14

# io_uring_buf_reg: ring_addr, ring_entries, bgid, flags, resv[3].
BUF_REG: Final = Struct("=QIHH24x")

# io_uring_rsrc_update: offset, resv, data.
RSRC_UPDATE: Final = Struct("=I4xQ")

# io_uring_rsrc_register: nr, flags, resv2, data, tags.
RSRC_REGISTER: Final = Struct("=II8xQQ")

# io_uring_rsrc_update2: offset, resv, data, tags, nr, resv2.
RSRC_UPDATE2: Final = Struct("=I4xQQI4x")

# io_uring_probe head: last_op, ops_len, resv; and io_uring_probe_op: op, resv, flags, resv2.
PROBE_HEAD: Final = Struct("=BB14x")
PROBE_OP: Final = Struct("=BxH4x")

# iovec: iov_base, iov_len, on a 64-bit machine.
IOVEC: Final = Struct("=QQ")

# msghdr: msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags; on a
# 64-bit machine, as are the two below.
MSGHDR: Final = Struct("=QI4xQQQQi4x")

# cmsghdr: cmsg_len, cmsg_level, cmsg_type; data behind it, and the next one at a multiple of 8.
CMSGHDR: Final = Struct("=Qii")
CMSG_ALIGN: Final = 8

# ucred: pid, uid, gid.
UCRED: Final = Struct("=iII")

# open_how: flags, mode, resolve.
OPEN_HOW: Final = Struct("=QQQ")

# io_uring_sync_cancel_reg: addr, fd, flags, timeout, opcode, pad.
SYNC_CANCEL_REG: Final = Struct("=QiIqqB7x24x")

# statx: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask; then
# atime, btime, ctime, mtime, each an s64 of seconds and a u32 of nanoseconds; then the major and
# minor numbers of the device that it is, and of the one that it is on; then, behind mnt_id, the
# alignment of memory and of offsets for O_DIRECT.
STATX: Final = Struct("=IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIII8xII96x")
