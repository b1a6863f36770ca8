"""Flags of rings, of entering them, of requests and of completions."""

from uringio._sys import constants as k

from ._member import Bits

__all__ = [
    "CqRingFlags",
    "CqeFlags",
    "EnterFlags",
    "Features",
    "SetupFlags",
    "SqRingFlags",
    "SqeFlags",
]


class SetupFlags(Bits):
    """How a ring is made (IORING_SETUP_*).  Source: io_uring_setup_flags(7)."""

    IOPOLL = k.IORING_SETUP_IOPOLL, "5.1", "poll devices for completions; O_DIRECT reads and writes"
    SQPOLL = k.IORING_SETUP_SQPOLL, "5.1", "a thread of the kernel's takes the submissions"
    SQ_AFF = k.IORING_SETUP_SQ_AFF, "5.1", "bind that thread to a processor; needs SQPOLL"
    CQSIZE = k.IORING_SETUP_CQSIZE, "5.5", "the completion queue's size is given"
    CLAMP = k.IORING_SETUP_CLAMP, "5.6", "reduce sizes that are too large, rather than refuse them"
    ATTACH_WQ = k.IORING_SETUP_ATTACH_WQ, "5.6", "share the worker threads of another ring"
    R_DISABLED = k.IORING_SETUP_R_DISABLED, "5.10", "refuse requests until the ring is enabled"
    SUBMIT_ALL = k.IORING_SETUP_SUBMIT_ALL, "5.18", "go on behind a request that is refused"
    COOP_TASKRUN = k.IORING_SETUP_COOP_TASKRUN, "5.19", "do not interrupt the program to complete"
    TASKRUN_FLAG = (
        k.IORING_SETUP_TASKRUN_FLAG, "5.19",
        "tell in the queue's flags of work to be run; needs COOP_TASKRUN or DEFER_TASKRUN",
    )  # fmt: skip
    SQE128 = k.IORING_SETUP_SQE128, "5.19", "all requests have 128 bytes; excludes SQE_MIXED"
    CQE32 = k.IORING_SETUP_CQE32, "5.19", "all completions have 32 bytes; excludes CQE_MIXED"
    SINGLE_ISSUER = k.IORING_SETUP_SINGLE_ISSUER, "6.0", "only one thread ever submits"
    DEFER_TASKRUN = (
        k.IORING_SETUP_DEFER_TASKRUN, "6.1",
        "complete only inside the owner's enter; needs SINGLE_ISSUER, excludes SQPOLL",
    )  # fmt: skip
    NO_MMAP = k.IORING_SETUP_NO_MMAP, "6.5", "the queues live in memory of the caller's"
    REGISTERED_FD_ONLY = (
        k.IORING_SETUP_REGISTERED_FD_ONLY, "6.5", "a registered index, no fd; needs NO_MMAP",
    )  # fmt: skip
    NO_SQARRAY = k.IORING_SETUP_NO_SQARRAY, "6.6", "no index array between queue and requests"
    HYBRID_IOPOLL = k.IORING_SETUP_HYBRID_IOPOLL, "6.13", "sleep before polling; needs IOPOLL"
    CQE_MIXED = k.IORING_SETUP_CQE_MIXED, "6.18", "completions of 16 and 32 bytes; excludes CQE32"
    SQE_MIXED = k.IORING_SETUP_SQE_MIXED, "6.19", "requests of 64 and 128 bytes; excludes SQE128"
    SQ_REWIND = k.IORING_SETUP_SQ_REWIND, "7.0", "every batch starts at slot 0; needs NO_SQARRAY"


class EnterFlags(Bits):
    """Flags of ``io_uring_enter`` (IORING_ENTER_*).  Source: io_uring_enter(2)."""

    GETEVENTS = k.IORING_ENTER_GETEVENTS, "5.1", "wait, and run deferred work"
    SQ_WAKEUP = k.IORING_ENTER_SQ_WAKEUP, "5.1", "wake the submitting thread of the kernel's"
    SQ_WAIT = k.IORING_ENTER_SQ_WAIT, "5.10", "wait until that thread has made room"
    EXT_ARG = k.IORING_ENTER_EXT_ARG, "5.11", "the argument is a structure, with a timeout"
    REGISTERED_RING = k.IORING_ENTER_REGISTERED_RING, "5.18", "the ring is a registered index"
    ABS_TIMER = k.IORING_ENTER_ABS_TIMER, "6.12", "the timeout is a moment, not a duration"
    EXT_ARG_REG = k.IORING_ENTER_EXT_ARG_REG, "6.13", "the argument lies in registered memory"
    NO_IOWAIT = k.IORING_ENTER_NO_IOWAIT, "6.15", "do not count the wait as one for a disk"


class Features(Bits):
    """What a kernel's rings can do (IORING_FEAT_*).  Source: io_uring_setup(2)."""

    SINGLE_MMAP = k.IORING_FEAT_SINGLE_MMAP, "5.4", "both queues are one mapping"
    NODROP = k.IORING_FEAT_NODROP, "5.5", "completions that find no room are kept, not dropped"
    SUBMIT_STABLE = k.IORING_FEAT_SUBMIT_STABLE, "5.5", "arguments may go once they were submitted"
    RW_CUR_POS = k.IORING_FEAT_RW_CUR_POS, "5.6", "offset -1 is where the file stands"
    CUR_PERSONALITY = k.IORING_FEAT_CUR_PERSONALITY, "5.6", "credentials are those of the submitter"
    FAST_POLL = k.IORING_FEAT_FAST_POLL, "5.7", "what must wait needs no thread of its own"
    POLL_32BITS = k.IORING_FEAT_POLL_32BITS, "5.9", "POLL_ADD takes EPOLLEXCLUSIVE"
    SQPOLL_NONFIXED = k.IORING_FEAT_SQPOLL_NONFIXED, "5.11", "SQPOLL takes files not registered"
    EXT_ARG = k.IORING_FEAT_EXT_ARG, "5.11", "waits take a timeout"
    NATIVE_WORKERS = k.IORING_FEAT_NATIVE_WORKERS, "5.12", "workers are threads of the process"
    RSRC_TAGS = k.IORING_FEAT_RSRC_TAGS, "5.13", "registered buffers and files take tags"
    CQE_SKIP = k.IORING_FEAT_CQE_SKIP, "5.17", "SqeFlags.CQE_SKIP_SUCCESS is known"
    LINKED_FILE = k.IORING_FEAT_LINKED_FILE, "5.17", "a linked request's file is found when it runs"
    REG_REG_RING = k.IORING_FEAT_REG_REG_RING, "6.3", "registrations take a registered index"
    RECVSEND_BUNDLE = (
        k.IORING_FEAT_RECVSEND_BUNDLE,
        "6.10",
        "bundles, and sends of provided buffers",
    )
    MIN_TIMEOUT = k.IORING_FEAT_MIN_TIMEOUT, "6.12", "waits take a least duration"
    RW_ATTR = k.IORING_FEAT_RW_ATTR, "6.14", "reads and writes take attributes"
    NO_IOWAIT = k.IORING_FEAT_NO_IOWAIT, "6.15", "EnterFlags.NO_IOWAIT is known"


class SqeFlags(Bits):
    """Flags that every request takes (IOSQE_*).  Source: io_uring_enter(2)."""

    FIXED_FILE = k.IOSQE_FIXED_FILE, "5.1", "the descriptor is a slot of the registered files"
    IO_DRAIN = k.IOSQE_IO_DRAIN, "5.2", "start when all before have completed"
    IO_LINK = k.IOSQE_IO_LINK, "5.3", "start the next when this has succeeded, in full"
    IO_HARDLINK = k.IOSQE_IO_HARDLINK, "5.5", "start the next when this has completed"
    ASYNC = k.IOSQE_ASYNC, "5.6", "give it to a worker thread at once"
    BUFFER_SELECT = k.IOSQE_BUFFER_SELECT, "5.7", "take a buffer of the group"
    CQE_SKIP_SUCCESS = k.IOSQE_CQE_SKIP_SUCCESS, "5.17", "post nothing unless it fails"


class CqeFlags(Bits):
    """Flags of completions (IORING_CQE_F_*); the buffer's number stands above bit 16."""

    BUFFER = (
        k.IORING_CQE_F_BUFFER,
        "5.7",
        "a provided buffer was taken; its number is in bits 16-31",
    )
    MORE = k.IORING_CQE_F_MORE, "5.13", "the request goes on: more completions will come"
    SOCK_NONEMPTY = k.IORING_CQE_F_SOCK_NONEMPTY, "5.19", "the socket had more to take"
    NOTIF = k.IORING_CQE_F_NOTIF, "6.0", "a zero-copy send has let go of its memory"
    BUF_MORE = k.IORING_CQE_F_BUF_MORE, "6.12", "the buffer is not used up, and stays the kernel's"
    SKIP = k.IORING_CQE_F_SKIP, "6.18", "filler of a mixed ring, to be ignored"
    F_32 = k.IORING_CQE_F_32, "6.18", "this completion has 32 bytes, in a mixed ring"
    TSTAMP_HW = k.IORING_CQE_F_TSTAMP_HW, "6.17", "of TX_TIMESTAMP: the network card's own time"


class SqRingFlags(Bits):
    """Flags that the kernel sets in the submission queue (IORING_SQ_*)."""

    NEED_WAKEUP = k.IORING_SQ_NEED_WAKEUP, "5.1", "the submitting thread sleeps"
    CQ_OVERFLOW = k.IORING_SQ_CQ_OVERFLOW, "5.8", "completions wait for room in their queue"
    TASKRUN = k.IORING_SQ_TASKRUN, "5.19", "deferred work is pending"


class CqRingFlags(Bits):
    """Flags that the program sets in the completion queue (IORING_CQ_*)."""

    EVENTFD_DISABLED = k.IORING_CQ_EVENTFD_DISABLED, "5.8", "do not write to the registered eventfd"
