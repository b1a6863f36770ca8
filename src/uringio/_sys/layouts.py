"""
Byte layouts of what crosses the kernel's border, as `struct.Struct`s.

Native byte order, standard sizes (``=``): the kernel lays these structures out by explicit width
and aligns every member by hand, so they are the same on every 64-bit Linux.  Sizes and offsets are
pinned by `tests/sys/test_layouts.py` and compared with the C compiler's where one is present.
"""

import _socket
import os
from struct import Struct
from typing import Final, Protocol

from .numbers import IS_LINUX

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


# All of it: the head as above, fd, off, addr, len, the flags word, user_data, buf_index,
# personality, file_index, addr3 / optval / attr_ptr, attr_type_mask.
SQE_FULL: Final = Struct("=IiQQIIQHHIQQ")

# Where a command of 80 bytes lies in a request of 128.
SQE_COMMAND_OFFSET: Final = 48
SQE_COMMAND_BYTES: Final = 80

# io_uring_cqe: user_data, res, flags; and the same with 16 bytes more of the operation's own.
CQE: Final = Struct("=QiI")
CQE_BIG: Final = Struct("=QiIQQ")

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

# io_uring_buf_reg: ring_addr, ring_entries, bgid, flags, min_left, resv[5].
BUF_REG: Final = Struct("=QIHHI20x")

# io_uring_buf_status: buf_group, head.
BUF_STATUS: Final = Struct("=II32x")

# io_uring_rsrc_update: offset, resv, data.
RSRC_UPDATE: Final = Struct("=I4xQ")

# io_uring_rsrc_update2: offset, resv, data, tags, nr.
RSRC_UPDATE2: Final = Struct("=I4xQQI4x")

# io_uring_rsrc_register: nr, flags, resv2, data, tags.
RSRC_REGISTER: Final = Struct("=II8xQQ")

# io_uring_restriction: opcode, and register_op / sqe_op / sqe_flags; and the head of a list of them
# for a task: flags, nr_res.
RESTRICTION: Final = Struct("=HB13x")
TASK_RESTRICTION: Final = Struct("=HH12x")

# io_uring_clock_register: clockid.
CLOCK_REGISTER: Final = Struct("=I12x")

# io_uring_clone_buffers: src_fd, flags, src_off, dst_off, nr.
CLONE_BUFFERS: Final = Struct("=IIIII12x")

# io_uring_napi: busy_poll_to, prefer_busy_poll.
NAPI: Final = Struct("=IB11x")

# io_uring_file_index_range: off, len.
FILE_INDEX_RANGE: Final = Struct("=II8x")

# io_uring_region_desc: user_addr, size, flags, id, mmap_offset; and io_uring_mem_region_reg:
# region_uptr, flags.
REGION_DESC: Final = Struct("=QQIIQ32x")
MEM_REGION_REG: Final = Struct("=QQ16x")

# io_uring_reg_wait: ts, min_wait_usec, flags, sigmask, sigmask_sz.
REG_WAIT: Final = Struct("=qqIIQI28x")

# io_uring_recvmsg_out: namelen, controllen, payloadlen, flags.
RECVMSG_OUT: Final = Struct("=IIII")

# io_uring_attr_pi: flags, app_tag, len, addr, seed.
ATTR_PI: Final = Struct("=HHIQQ8x")

# io_uring_query_hdr: next_entry, query_data, query_op, size, result; and what it may point to.
QUERY_HDR: Final = Struct("=QQIIi12x")
# nr_request_opcodes, nr_register_opcodes, feature_flags, ring_setup_flags, enter_flags, sqe_flags,
# nr_query_opcodes.
QUERY_OPCODE: Final = Struct("=IIQQQQI4x")
# register_flags, area_flags, nr_ctrl_opcodes, features, rq_hdr_size, rq_hdr_alignment.
QUERY_ZCRX: Final = Struct("=QQIIII8x")
# hdr_size, hdr_alignment.
QUERY_SCQ: Final = Struct("=QQ")

# io_uring_bpf with its filter: cmd_type, cmd_flags; opcode, flags, filter_len, pdu_size and
# filter_ptr.
BPF: Final = Struct("=HH4xIIIB3xQ40x")
# io_uring_bpf_ctx, as a filter of OPENAT2 sees it: user_data, opcode, sqe_flags, pdu_size, and
# flags, mode, resolve.
BPF_CTX: Final = Struct("=QBBB5xQQQ")

# io_uring_zcrx_rqe: off, len.  io_uring_zcrx_cqe: off.  io_uring_zcrx_offsets: head, tail, rqes.
ZCRX_RQE: Final = Struct("=QI4x")
ZCRX_CQE: Final = Struct("=Q8x")
ZCRX_OFFSETS: Final = Struct("=III20x")
# io_uring_zcrx_area_reg: addr, len, rq_area_token, flags, dmabuf_fd.
ZCRX_AREA_REG: Final = Struct("=QQQII16x")
# io_uring_zcrx_ifq_reg: if_idx, if_rxq, rq_entries, flags, area_ptr, region_ptr, the offsets as
# above, zcrx_id, rx_buf_len.
ZCRX_IFQ_REG: Final = Struct("=IIIIQQIII20xII24x")
# zcrx_ctrl for an export: zcrx_id, op, zcrx_fd.
ZCRX_CTRL: Final = Struct("=II16xI44x")

# io_uring_probe head: last_op, ops_len, resv; and io_uring_probe_op: op, resv, flags, resv2.
PROBE_HEAD: Final = Struct("=BB14x")
PROBE_OP: Final = Struct("=BxH4x")

# iovec: iov_base, iov_len, on a 64-bit machine.
IOVEC: Final = Struct("=QQ")

# msghdr: msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags; on a
# 64-bit machine, as are the two below.  The BSDs and macOS have lengths of 32 bits.
MSGHDR: Final = Struct("=QI4xQQQQi4x" if IS_LINUX else "=QI4xQI4xQIi")

# cmsghdr: cmsg_len, cmsg_level, cmsg_type; its data, and the next one, at multiples.
CMSGHDR: Final = Struct("=Qii" if IS_LINUX else "=Iii")
CMSG_DATA_AT: Final = 16 if IS_LINUX else _socket.CMSG_LEN(0)
CMSG_ALIGN: Final = 8 if IS_LINUX else _socket.CMSG_SPACE(1) - _socket.CMSG_SPACE(0)

# ucred: pid, uid, gid.
UCRED: Final = Struct("=iII")

# futex_waitv: val, uaddr, flags.
FUTEX_WAITV: Final = Struct("=QQI4x")

# siginfo_t of SIGCHLD: si_signo, si_errno, si_code, si_pid, si_uid, si_status.
SIGINFO_CHILD: Final = Struct("=iii4xiIi100x")

# epoll_event: events, data; without padding on one architecture.
EPOLL_EVENT: Final = Struct("=IQ" if os.uname().machine == "x86_64" else "=I4xQ")

# open_how: flags, mode, resolve.
OPEN_HOW: Final = Struct("=QQQ")

# io_uring_sync_cancel_reg: addr, fd, flags, timeout, opcode, pad.
SYNC_CANCEL_REG: Final = Struct("=QiIqqB7x24x")

# statx: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask; then
# atime, btime, ctime, mtime, each an s64 of seconds and a u32 of nanoseconds; then the major and
# minor numbers of the device that it is, and of the one that it is on; then, behind mnt_id, the
# alignment of memory and of offsets for O_DIRECT.
STATX: Final = Struct("=IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIII8xII96x")
