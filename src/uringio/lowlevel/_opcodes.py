"""What io_uring can be asked to do: operations of requests, and of ``io_uring_register``."""

from uringio._sys import constants as k

from ._member import Number

__all__ = ["Opcode", "RegisterOp"]


class Opcode(Number):
    """Operations of requests (IORING_OP_*).  Source: io_uring_enter(2)."""

    NOP = k.IORING_OP_NOP, "5.1", "complete at once"
    READV = k.IORING_OP_READV, "5.1", "read into several pieces of memory"
    WRITEV = k.IORING_OP_WRITEV, "5.1", "write several pieces of memory"
    FSYNC = k.IORING_OP_FSYNC, "5.1", "have a file's content and metadata reach the disk"
    READ_FIXED = k.IORING_OP_READ_FIXED, "5.1", "read into a registered buffer"
    WRITE_FIXED = k.IORING_OP_WRITE_FIXED, "5.1", "write a registered buffer"
    POLL_ADD = k.IORING_OP_POLL_ADD, "5.1", "wait until a descriptor is ready, once or each time"
    POLL_REMOVE = k.IORING_OP_POLL_REMOVE, "5.1", "withdraw or, from 5.13, change a POLL_ADD"
    SYNC_FILE_RANGE = k.IORING_OP_SYNC_FILE_RANGE, "5.2", "write back a range of a file"
    SENDMSG = k.IORING_OP_SENDMSG, "5.3", "send a message with address and ancillary data"
    RECVMSG = k.IORING_OP_RECVMSG, "5.3", "receive a message with address and ancillary data"
    TIMEOUT = k.IORING_OP_TIMEOUT, "5.4", "complete after a time or a number of completions"
    TIMEOUT_REMOVE = k.IORING_OP_TIMEOUT_REMOVE, "5.5", "withdraw or, from 5.11, move a TIMEOUT"
    ACCEPT = k.IORING_OP_ACCEPT, "5.5", "take a connection from a listening socket"
    ASYNC_CANCEL = k.IORING_OP_ASYNC_CANCEL, "5.5", "ask for the end of other requests"
    LINK_TIMEOUT = k.IORING_OP_LINK_TIMEOUT, "5.5", "bound the time of the request linked before"
    CONNECT = k.IORING_OP_CONNECT, "5.5", "connect a socket"
    FALLOCATE = k.IORING_OP_FALLOCATE, "5.6", "reserve or free the blocks of a range of a file"
    OPENAT = k.IORING_OP_OPENAT, "5.6", "open a file"
    CLOSE = k.IORING_OP_CLOSE, "5.6", "close a descriptor or a registered file"
    FILES_UPDATE = k.IORING_OP_FILES_UPDATE, "5.6", "change slots of the table of registered files"
    STATX = k.IORING_OP_STATX, "5.6", "look up a file's metadata"
    READ = k.IORING_OP_READ, "5.6", "read into one piece of memory"
    WRITE = k.IORING_OP_WRITE, "5.6", "write one piece of memory"
    FADVISE = k.IORING_OP_FADVISE, "5.6", "say how a range of a file will be used"
    MADVISE = k.IORING_OP_MADVISE, "5.6", "say how a range of memory will be used"
    SEND = k.IORING_OP_SEND, "5.6", "send on a socket"
    RECV = k.IORING_OP_RECV, "5.6", "receive from a socket, once or each time"
    OPENAT2 = k.IORING_OP_OPENAT2, "5.6", "open a file by rules of path resolution"
    EPOLL_CTL = k.IORING_OP_EPOLL_CTL, "5.6", "change what an epoll descriptor watches"
    SPLICE = k.IORING_OP_SPLICE, "5.7", "move bytes from or to a pipe within the kernel"
    PROVIDE_BUFFERS = k.IORING_OP_PROVIDE_BUFFERS, "5.7", "add buffers to a group, the older way"
    REMOVE_BUFFERS = k.IORING_OP_REMOVE_BUFFERS, "5.7", "take buffers out of a group"
    TEE = k.IORING_OP_TEE, "5.8", "copy bytes from one pipe into another"
    SHUTDOWN = k.IORING_OP_SHUTDOWN, "5.11", "end one or both directions of a connection"
    RENAMEAT = k.IORING_OP_RENAMEAT, "5.11", "rename a file"
    UNLINKAT = k.IORING_OP_UNLINKAT, "5.11", "remove a name or an empty folder"
    MKDIRAT = k.IORING_OP_MKDIRAT, "5.15", "make a folder"
    SYMLINKAT = k.IORING_OP_SYMLINKAT, "5.15", "make a symbolic link"
    LINKAT = k.IORING_OP_LINKAT, "5.15", "give a file another name"
    MSG_RING = k.IORING_OP_MSG_RING, "5.18", "post a completion, or a file, to another ring"
    FSETXATTR = k.IORING_OP_FSETXATTR, "5.19", "set an extended attribute of an open file"
    SETXATTR = k.IORING_OP_SETXATTR, "5.19", "set an extended attribute by path"
    FGETXATTR = k.IORING_OP_FGETXATTR, "5.19", "read an extended attribute of an open file"
    GETXATTR = k.IORING_OP_GETXATTR, "5.19", "read an extended attribute by path"
    SOCKET = k.IORING_OP_SOCKET, "5.19", "make a socket"
    URING_CMD = k.IORING_OP_URING_CMD, "5.19", "a command of the file's own driver or protocol"
    SEND_ZC = (
        k.IORING_OP_SEND_ZC,
        "6.0",
        "send without a copy; a second completion frees the memory",
    )
    SENDMSG_ZC = k.IORING_OP_SENDMSG_ZC, "6.1", "send a message without a copy"
    READ_MULTISHOT = k.IORING_OP_READ_MULTISHOT, "6.7", "read each time there is something to read"
    WAITID = k.IORING_OP_WAITID, "6.7", "wait for a child process"
    FUTEX_WAIT = k.IORING_OP_FUTEX_WAIT, "6.7", "wait while a word of memory has a value"
    FUTEX_WAKE = k.IORING_OP_FUTEX_WAKE, "6.7", "wake who waits on a word of memory"
    FUTEX_WAITV = k.IORING_OP_FUTEX_WAITV, "6.7", "wait on several words of memory"
    FIXED_FD_INSTALL = k.IORING_OP_FIXED_FD_INSTALL, "6.8", "make a descriptor of a registered file"
    FTRUNCATE = k.IORING_OP_FTRUNCATE, "6.9", "set a file's length"
    BIND = k.IORING_OP_BIND, "6.11", "bind a socket to an address"
    LISTEN = k.IORING_OP_LISTEN, "6.11", "have a socket listen"
    RECV_ZC = k.IORING_OP_RECV_ZC, "6.15", "receive into memory of a network card's queue"
    EPOLL_WAIT = k.IORING_OP_EPOLL_WAIT, "6.15", "take events from an epoll descriptor"
    READV_FIXED = k.IORING_OP_READV_FIXED, "6.15", "read into several pieces of a registered buffer"
    WRITEV_FIXED = k.IORING_OP_WRITEV_FIXED, "6.15", "write several pieces of a registered buffer"
    PIPE = k.IORING_OP_PIPE, "6.16", "make a pipe"
    NOP128 = k.IORING_OP_NOP128, "6.19", "a NOP of 128 bytes"
    URING_CMD128 = k.IORING_OP_URING_CMD128, "6.19", "a URING_CMD with 80 bytes for its command"


class RegisterOp(Number):
    """
    Operations of ``io_uring_register`` (IORING_REGISTER_*).

    USE_REGISTERED_RING is a flag beside the others.  Source: io_uring_register(2).
    """

    BUFFERS = k.IORING_REGISTER_BUFFERS, "5.1", "pin memory for fixed-buffer operations"
    UNREGISTER_BUFFERS = k.IORING_UNREGISTER_BUFFERS, "5.1", "unpin it"
    FILES = k.IORING_REGISTER_FILES, "5.1", "make a table of registered files"
    UNREGISTER_FILES = k.IORING_UNREGISTER_FILES, "5.1", "drop the table"
    EVENTFD = k.IORING_REGISTER_EVENTFD, "5.2", "have an eventfd count completions"
    UNREGISTER_EVENTFD = k.IORING_UNREGISTER_EVENTFD, "5.2", "no longer"
    FILES_UPDATE = k.IORING_REGISTER_FILES_UPDATE, "5.5", "change slots of the table"
    EVENTFD_ASYNC = k.IORING_REGISTER_EVENTFD_ASYNC, "5.6", "count those that came later only"
    PROBE = k.IORING_REGISTER_PROBE, "5.6", "tell which operations there are"
    PERSONALITY = k.IORING_REGISTER_PERSONALITY, "5.6", "keep the caller's credentials for requests"
    UNREGISTER_PERSONALITY = k.IORING_UNREGISTER_PERSONALITY, "5.6", "forget kept credentials"
    RESTRICTIONS = k.IORING_REGISTER_RESTRICTIONS, "5.10", "allow nothing but what is listed"
    ENABLE_RINGS = k.IORING_REGISTER_ENABLE_RINGS, "5.10", "start a ring that was made disabled"
    FILES2 = k.IORING_REGISTER_FILES2, "5.13", "FILES with tags, or sparse"
    FILES_UPDATE2 = k.IORING_REGISTER_FILES_UPDATE2, "5.13", "FILES_UPDATE with tags"
    BUFFERS2 = k.IORING_REGISTER_BUFFERS2, "5.13", "BUFFERS with tags, or sparse"
    BUFFERS_UPDATE = k.IORING_REGISTER_BUFFERS_UPDATE, "5.13", "change slots of the pinned memory"
    IOWQ_AFF = k.IORING_REGISTER_IOWQ_AFF, "5.14", "choose the processors of worker threads"
    UNREGISTER_IOWQ_AFF = k.IORING_UNREGISTER_IOWQ_AFF, "5.14", "allow them all again"
    IOWQ_MAX_WORKERS = k.IORING_REGISTER_IOWQ_MAX_WORKERS, "5.15", "bound the worker threads"
    RING_FDS = k.IORING_REGISTER_RING_FDS, "5.18", "register rings' descriptors with the thread"
    UNREGISTER_RING_FDS = k.IORING_UNREGISTER_RING_FDS, "5.18", "give the indexes back"
    PBUF_RING = k.IORING_REGISTER_PBUF_RING, "5.19", "provide buffers by a ring in shared memory"
    UNREGISTER_PBUF_RING = k.IORING_UNREGISTER_PBUF_RING, "5.19", "withdraw it"
    SYNC_CANCEL = k.IORING_REGISTER_SYNC_CANCEL, "6.0", "cancel requests and wait for their end"
    FILE_ALLOC_RANGE = (
        k.IORING_REGISTER_FILE_ALLOC_RANGE, "6.0", "bound the slots that are chosen by the kernel",
    )  # fmt: skip
    PBUF_STATUS = k.IORING_REGISTER_PBUF_STATUS, "6.8", "tell how far a buffer ring was consumed"
    NAPI = k.IORING_REGISTER_NAPI, "6.9", "have waits poll the network card"
    UNREGISTER_NAPI = k.IORING_UNREGISTER_NAPI, "6.9", "no longer"
    CLOCK = k.IORING_REGISTER_CLOCK, "6.12", "choose the clock of waits"
    CLONE_BUFFERS = k.IORING_REGISTER_CLONE_BUFFERS, "6.12", "share another ring's pinned memory"
    SEND_MSG_RING = k.IORING_REGISTER_SEND_MSG_RING, "6.13", "MSG_RING without a ring of one's own"
    ZCRX_IFQ = k.IORING_REGISTER_ZCRX_IFQ, "6.15", "take over a receive queue of a network card"
    RESIZE_RINGS = k.IORING_REGISTER_RESIZE_RINGS, "6.13", "change the queues' sizes"
    MEM_REGION = k.IORING_REGISTER_MEM_REGION, "6.13", "register memory for arguments of waits"
    QUERY = k.IORING_REGISTER_QUERY, "6.18", "tell what the kernel has; needs no ring"
    ZCRX_CTRL = k.IORING_REGISTER_ZCRX_CTRL, "6.19", "control a receive queue that was taken over"
    BPF_FILTER = k.IORING_REGISTER_BPF_FILTER, "7.0", "judge requests by a BPF program"
    USE_REGISTERED_RING = (
        k.IORING_REGISTER_USE_REGISTERED_RING, "6.3", "flag: the descriptor is a registered index",
    )  # fmt: skip
