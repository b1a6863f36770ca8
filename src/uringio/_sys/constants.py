"""
The kernel's numbers, by the kernel's names.

Source: <linux/io_uring.h> as shipped with liburing 2.15, and the generic ABI of <asm-generic/*.h>.
Only what the rooms above use stands here; `tests/sys` compares every member with the C compiler's
header where one is present.
"""

from typing import Final

# Syscall numbers; the same on every architecture but alpha, which got them 110 higher.
NR_IO_URING_SETUP: Final = 425
NR_IO_URING_ENTER: Final = 426
NR_IO_URING_REGISTER: Final = 427
NR_OPENAT2: Final = 437

# --- open_how ------------------------------------------------------------------------------------
RESOLVE_CACHED: Final = 0x20

# --- opcodes -------------------------------------------------------------------------------------
IORING_OP_NOP: Final = 0
IORING_OP_READV: Final = 1
IORING_OP_WRITEV: Final = 2
IORING_OP_FSYNC: Final = 3
IORING_OP_READ_FIXED: Final = 4
IORING_OP_WRITE_FIXED: Final = 5
IORING_OP_POLL_ADD: Final = 6
IORING_OP_SENDMSG: Final = 9
IORING_OP_RECVMSG: Final = 10
IORING_OP_TIMEOUT: Final = 11
IORING_OP_ACCEPT: Final = 13
IORING_OP_ASYNC_CANCEL: Final = 14
IORING_OP_CONNECT: Final = 16
IORING_OP_FALLOCATE: Final = 17
IORING_OP_OPENAT: Final = 18
IORING_OP_CLOSE: Final = 19
IORING_OP_STATX: Final = 21
IORING_OP_READ: Final = 22
IORING_OP_WRITE: Final = 23
IORING_OP_SEND: Final = 26
IORING_OP_RECV: Final = 27
IORING_OP_OPENAT2: Final = 28
IORING_OP_SHUTDOWN: Final = 34
IORING_OP_RENAMEAT: Final = 35
IORING_OP_UNLINKAT: Final = 36
IORING_OP_MKDIRAT: Final = 37
IORING_OP_SYMLINKAT: Final = 38
IORING_OP_LINKAT: Final = 39
IORING_OP_SOCKET: Final = 45
IORING_OP_SEND_ZC: Final = 47
IORING_OP_SENDMSG_ZC: Final = 48
IORING_OP_FIXED_FD_INSTALL: Final = 54
IORING_OP_FTRUNCATE: Final = 55

# --- io_uring_params.flags -----------------------------------------------------------------------
IORING_SETUP_CQSIZE: Final = 1 << 3
IORING_SETUP_CLAMP: Final = 1 << 4
IORING_SETUP_R_DISABLED: Final = 1 << 6
IORING_SETUP_SUBMIT_ALL: Final = 1 << 7
IORING_SETUP_COOP_TASKRUN: Final = 1 << 8
IORING_SETUP_TASKRUN_FLAG: Final = 1 << 9
IORING_SETUP_SINGLE_ISSUER: Final = 1 << 12
IORING_SETUP_DEFER_TASKRUN: Final = 1 << 13
IORING_SETUP_NO_SQARRAY: Final = 1 << 16

# --- io_uring_params.features --------------------------------------------------------------------
IORING_FEAT_SINGLE_MMAP: Final = 1 << 0
IORING_FEAT_NODROP: Final = 1 << 1
IORING_FEAT_SUBMIT_STABLE: Final = 1 << 2
IORING_FEAT_RW_CUR_POS: Final = 1 << 3
IORING_FEAT_FAST_POLL: Final = 1 << 5
IORING_FEAT_EXT_ARG: Final = 1 << 8
IORING_FEAT_REG_REG_RING: Final = 1 << 13
IORING_FEAT_NO_IOWAIT: Final = 1 << 17

# --- io_uring_enter flags ------------------------------------------------------------------------
IORING_ENTER_GETEVENTS: Final = 1 << 0
IORING_ENTER_EXT_ARG: Final = 1 << 3
IORING_ENTER_REGISTERED_RING: Final = 1 << 4
IORING_ENTER_NO_IOWAIT: Final = 1 << 7

# --- sqe.flags -----------------------------------------------------------------------------------
IOSQE_FIXED_FILE: Final = 1 << 0
IOSQE_IO_DRAIN: Final = 1 << 1
IOSQE_IO_LINK: Final = 1 << 2
IOSQE_ASYNC: Final = 1 << 4
IOSQE_BUFFER_SELECT: Final = 1 << 5
IOSQE_CQE_SKIP_SUCCESS: Final = 1 << 6

# --- cqe.flags and ring flags --------------------------------------------------------------------
IORING_CQE_F_BUFFER: Final = 1 << 0
IORING_CQE_F_MORE: Final = 1 << 1
IORING_CQE_F_SOCK_NONEMPTY: Final = 1 << 2
IORING_CQE_F_NOTIF: Final = 1 << 3
IORING_CQE_BUFFER_SHIFT: Final = 16
IORING_SQ_NEED_WAKEUP: Final = 1 << 0
IORING_SQ_CQ_OVERFLOW: Final = 1 << 1
IORING_SQ_TASKRUN: Final = 1 << 2

# --- per-operation flags -------------------------------------------------------------------------
IORING_RECVSEND_POLL_FIRST: Final = 1 << 0
IORING_RECVSEND_FIXED_BUF: Final = 1 << 2
IORING_ACCEPT_MULTISHOT: Final = 1 << 0
IORING_POLL_ADD_MULTI: Final = 1 << 0
IORING_FSYNC_DATASYNC: Final = 1 << 0
IORING_ASYNC_CANCEL_ALL: Final = 1 << 0
IORING_ASYNC_CANCEL_ANY: Final = 1 << 2
IORING_NOP_INJECT_RESULT: Final = 1 << 0

# --- register opcodes ----------------------------------------------------------------------------
IORING_REGISTER_BUFFERS: Final = 0
IORING_UNREGISTER_BUFFERS: Final = 1
IORING_REGISTER_FILES: Final = 2
IORING_UNREGISTER_FILES: Final = 3
IORING_REGISTER_FILES_UPDATE: Final = 6
IORING_REGISTER_PROBE: Final = 8
IORING_REGISTER_ENABLE_RINGS: Final = 12
IORING_REGISTER_BUFFERS2: Final = 15
IORING_REGISTER_BUFFERS_UPDATE: Final = 16
IORING_REGISTER_IOWQ_MAX_WORKERS: Final = 19
IORING_REGISTER_RING_FDS: Final = 20
IORING_UNREGISTER_RING_FDS: Final = 21
IORING_REGISTER_PBUF_RING: Final = 22
IORING_UNREGISTER_PBUF_RING: Final = 23
IORING_REGISTER_SYNC_CANCEL: Final = 24
IORING_RSRC_REGISTER_SPARSE: Final = 1 << 0
IO_URING_OP_SUPPORTED: Final = 1 << 0

# --- mmap offsets --------------------------------------------------------------------------------
IORING_OFF_SQ_RING: Final = 0
IORING_OFF_SQES: Final = 0x10000000

# --- <linux/fs.h> --------------------------------------------------------------------------------
RWF_HIPRI: Final = 0x01

# --- <fcntl.h>, <sys/stat.h> for 64-bit generic Linux --------------------------------------------
AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
STATX_BASIC_STATS: Final = 0x7FF
STATX_DIOALIGN: Final = 0x2000
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08

SIZEOF_SQE: Final = 64
SIZEOF_CQE: Final = 16
SIZEOF_PARAMS: Final = 120
SIZEOF_STATX: Final = 256
SIZEOF_SOCKADDR_STORAGE: Final = 128
