"""Flags and commands of single operations."""

from uringio._sys import constants as k

from ._member import Bits, Number

__all__ = [
    "AcceptFlags",
    "BlockUringOp",
    "CancelFlags",
    "FixedFdFlags",
    "FsyncFlags",
    "Futex2Flags",
    "MsgRingCommand",
    "MsgRingFlags",
    "NopFlags",
    "NotifUsage",
    "PollFlags",
    "RecvSendFlags",
    "RwAttrFlags",
    "SocketUringOp",
    "SpliceFlags",
    "TimeoutFlags",
    "UringCmdFlags",
]


class RecvSendFlags(Bits):
    """How sends and receives behave (in ``ioprio``).  Source: io_uring_enter(2)."""

    POLL_FIRST = k.IORING_RECVSEND_POLL_FIRST, "5.19", "wait for readiness before the first try"
    RECV_MULTISHOT = k.IORING_RECV_MULTISHOT, "6.0", "receive each time; needs BUFFER_SELECT, len 0"
    FIXED_BUF = k.IORING_RECVSEND_FIXED_BUF, "6.0", "the memory is a registered buffer"
    SEND_ZC_REPORT_USAGE = k.IORING_SEND_ZC_REPORT_USAGE, "6.2", "tell if it was copied after all"
    BUNDLE = k.IORING_RECVSEND_BUNDLE, "6.10", "several provided buffers for one completion"
    SEND_VECTORIZED = k.IORING_SEND_VECTORIZED, "6.17", "the address is that of an array of iovecs"


class NotifUsage(Bits):
    """What ``res`` of a CqeFlags.NOTIF completion says, if it was asked to."""

    ZC_COPIED = k.IORING_NOTIF_USAGE_ZC_COPIED, "6.2", "the data was copied after all"


class AcceptFlags(Bits):
    """How an ACCEPT behaves (in ``ioprio``)."""

    MULTISHOT = k.IORING_ACCEPT_MULTISHOT, "5.19", "accept each time"
    DONTWAIT = k.IORING_ACCEPT_DONTWAIT, "6.10", "fail with EAGAIN rather than wait"
    POLL_FIRST = k.IORING_ACCEPT_POLL_FIRST, "6.10", "wait for readiness before the first try"


class TimeoutFlags(Bits):
    """Flags of TIMEOUT, TIMEOUT_REMOVE and LINK_TIMEOUT (IORING_TIMEOUT_*)."""

    ABS = k.IORING_TIMEOUT_ABS, "5.5", "the time is a moment, not a duration"
    UPDATE = k.IORING_TIMEOUT_UPDATE, "5.11", "TIMEOUT_REMOVE moves the timeout"
    BOOTTIME = k.IORING_TIMEOUT_BOOTTIME, "5.15", "by CLOCK_BOOTTIME, which counts suspended time"
    REALTIME = k.IORING_TIMEOUT_REALTIME, "5.15", "by CLOCK_REALTIME, which may be set"
    LINK_TIMEOUT_UPDATE = k.IORING_LINK_TIMEOUT_UPDATE, "5.15", "UPDATE, of a LINK_TIMEOUT"
    ETIME_SUCCESS = k.IORING_TIMEOUT_ETIME_SUCCESS, "5.16", "expiry is no failure: links go on"
    MULTISHOT = k.IORING_TIMEOUT_MULTISHOT, "6.4", "complete each time, so many times or for ever"
    IMMEDIATE_ARG = k.IORING_TIMEOUT_IMMEDIATE_ARG, "7.1", "the address is itself the nanoseconds"


class PollFlags(Bits):
    """Flags of POLL_ADD and POLL_REMOVE (IORING_POLL_*, in ``len``)."""

    ADD_MULTI = k.IORING_POLL_ADD_MULTI, "5.13", "complete each time"
    UPDATE_EVENTS = k.IORING_POLL_UPDATE_EVENTS, "5.13", "POLL_REMOVE changes the events"
    UPDATE_USER_DATA = k.IORING_POLL_UPDATE_USER_DATA, "5.13", "POLL_REMOVE changes the user_data"
    ADD_LEVEL = k.IORING_POLL_ADD_LEVEL, "6.0", "level-triggered"


class CancelFlags(Bits):
    """What ASYNC_CANCEL and SYNC_CANCEL match (IORING_ASYNC_CANCEL_*)."""

    ALL = k.IORING_ASYNC_CANCEL_ALL, "5.19", "all that match, not only the first; res is the count"
    FD = k.IORING_ASYNC_CANCEL_FD, "5.19", "by descriptor"
    ANY = k.IORING_ASYNC_CANCEL_ANY, "5.19", "whatever it is"
    FD_FIXED = k.IORING_ASYNC_CANCEL_FD_FIXED, "6.0", "the descriptor is a registered slot"
    USERDATA = k.IORING_ASYNC_CANCEL_USERDATA, "6.6", "by user_data too"
    OP = k.IORING_ASYNC_CANCEL_OP, "6.6", "by opcode"


class FsyncFlags(Bits):
    """Flags of FSYNC (IORING_FSYNC_*)."""

    DATASYNC = k.IORING_FSYNC_DATASYNC, "5.1", "leave out metadata that reading does not need"


class SpliceFlags(Bits):
    """Flags of SPLICE and TEE (SPLICE_F_*).  Source: splice(2)."""

    MOVE = k.SPLICE_F_MOVE, "5.7", "move pages where that is possible; nowadays without effect"
    NONBLOCK = k.SPLICE_F_NONBLOCK, "5.7", "do not wait for the pipe"
    MORE = k.SPLICE_F_MORE, "5.7", "more will follow"
    FD_IN_FIXED = k.SPLICE_F_FD_IN_FIXED, "5.7", "the descriptor to take from is a registered slot"


class MsgRingCommand(Number):
    """What MSG_RING delivers (IORING_MSG_*)."""

    DATA = k.IORING_MSG_DATA, "5.18", "a completion with the user_data and res given"
    SEND_FD = k.IORING_MSG_SEND_FD, "6.0", "a registered file"


class MsgRingFlags(Bits):
    """Flags of MSG_RING (IORING_MSG_RING_*)."""

    CQE_SKIP = k.IORING_MSG_RING_CQE_SKIP, "6.0", "the other ring gets the file, and no completion"
    FLAGS_PASS = k.IORING_MSG_RING_FLAGS_PASS, "6.3", "the completion has the flags given"


class FixedFdFlags(Bits):
    """Flags of FIXED_FD_INSTALL (IORING_FIXED_FD_*)."""

    NO_CLOEXEC = k.IORING_FIXED_FD_NO_CLOEXEC, "6.8", "programs that are executed inherit it"


class NopFlags(Bits):
    """Flags of NOP (IORING_NOP_*): what else it is to go through."""

    INJECT_RESULT = k.IORING_NOP_INJECT_RESULT, "6.10", "the result is ``len``"
    FILE = k.IORING_NOP_FILE, "6.13", "look the descriptor up"
    FIXED_FILE = k.IORING_NOP_FIXED_FILE, "6.13", "look it up among the registered files"
    FIXED_BUFFER = k.IORING_NOP_FIXED_BUFFER, "6.13", "look the registered buffer up"
    TW = k.IORING_NOP_TW, "6.16", "complete by deferred work"
    CQE32 = k.IORING_NOP_CQE32, "6.18", "complete with 32 bytes"


class UringCmdFlags(Bits):
    """Flags of URING_CMD (IORING_URING_CMD_*)."""

    FIXED = k.IORING_URING_CMD_FIXED, "5.19", "with a registered buffer"


class RwAttrFlags(Bits):
    """Attributes that a read or write may point to (IORING_RW_ATTR_FLAG_*)."""

    PI = k.IORING_RW_ATTR_FLAG_PI, "6.14", "protection information"


class SocketUringOp(Number):
    """Commands of sockets for URING_CMD (SOCKET_URING_OP_*)."""

    SIOCINQ = k.SOCKET_URING_OP_SIOCINQ, "6.7", "how many bytes wait to be received"
    SIOCOUTQ = k.SOCKET_URING_OP_SIOCOUTQ, "6.7", "how many bytes are not yet sent"
    GETSOCKOPT = k.SOCKET_URING_OP_GETSOCKOPT, "6.7", "read an option"
    SETSOCKOPT = k.SOCKET_URING_OP_SETSOCKOPT, "6.7", "set an option"
    TX_TIMESTAMP = k.SOCKET_URING_OP_TX_TIMESTAMP, "6.17", "when packets were sent"
    GETSOCKNAME = k.SOCKET_URING_OP_GETSOCKNAME, "6.19", "the socket's own or its peer's address"


class BlockUringOp(Number):
    """Commands of block devices for URING_CMD (BLOCK_URING_CMD_*)."""

    DISCARD = k.BLOCK_URING_CMD_DISCARD, "6.12", "give blocks back to the device"
    ZONE_RESET_ALL = k.BLOCK_URING_CMD_ZONE_RESET_ALL, "7.1", "rewind every zone of the device"


class Futex2Flags(Bits):
    """Flags of futex operations, where others have the descriptor (FUTEX2_*)."""

    SIZE_U32 = k.FUTEX2_SIZE_U32, "6.7", "the word has 32 bits; there are no others"
    PRIVATE = k.FUTEX2_PRIVATE, "6.7", "the word is not shared with other processes"
