"""Flags and codes in the arguments of ``io_uring_register``."""

from uringio._sys import constants as k

from ._member import Bits, Number

__all__ = [
    "BpfCommand",
    "BpfFilterFlags",
    "CloneBuffersFlags",
    "MemRegionFlags",
    "PbufRingFlags",
    "ProbeFlags",
    "QueryOp",
    "RegWaitFlags",
    "RegionFlags",
    "RestrictionOp",
    "RsrcFlags",
    "WorkerKind",
    "ZcrxAreaFlags",
    "ZcrxControl",
    "ZcrxFeatures",
    "ZcrxRegFlags",
]


class RsrcFlags(Bits):
    """Flags of FILES2 and BUFFERS2 (IORING_RSRC_REGISTER_*)."""

    REGISTER_SPARSE = k.IORING_RSRC_REGISTER_SPARSE, "5.19", "a table of empty slots"


class ProbeFlags(Bits):
    """What PROBE says of an operation (IO_URING_OP_*)."""

    SUPPORTED = k.IO_URING_OP_SUPPORTED, "5.6", "the kernel has it"


class PbufRingFlags(Bits):
    """Flags of PBUF_RING (IOU_PBUF_RING_*)."""

    MMAP = k.IOU_PBUF_RING_MMAP, "6.4", "the kernel allocates the entries, to be mapped"
    INC = k.IOU_PBUF_RING_INC, "6.12", "a buffer may be consumed bit by bit"


class CloneBuffersFlags(Bits):
    """Flags of CLONE_BUFFERS (IORING_REGISTER_*)."""

    SRC_REGISTERED = k.IORING_REGISTER_SRC_REGISTERED, "6.12", "the source is a registered index"
    DST_REPLACE = k.IORING_REGISTER_DST_REPLACE, "6.13", "replace what the slots hold"


class RegionFlags(Bits):
    """Flags of a region of memory (IORING_MEM_REGION_TYPE_*)."""

    USER = k.IORING_MEM_REGION_TYPE_USER, "6.13", "the memory is the caller's"


class MemRegionFlags(Bits):
    """Flags of MEM_REGION (IORING_MEM_REGION_*)."""

    REG_WAIT_ARG = k.IORING_MEM_REGION_REG_WAIT_ARG, "6.13", "it holds arguments of waits"


class RegWaitFlags(Bits):
    """Flags of a registered argument of waits (IORING_REG_WAIT_*)."""

    TS = k.IORING_REG_WAIT_TS, "6.13", "the timeout counts"


class RestrictionOp(Number):
    """What an entry of RESTRICTIONS is about (IORING_RESTRICTION_*)."""

    REGISTER_OP = k.IORING_RESTRICTION_REGISTER_OP, "5.10", "allow a registration"
    SQE_OP = k.IORING_RESTRICTION_SQE_OP, "5.10", "allow an operation"
    SQE_FLAGS_ALLOWED = k.IORING_RESTRICTION_SQE_FLAGS_ALLOWED, "5.10", "allow flags of requests"
    SQE_FLAGS_REQUIRED = k.IORING_RESTRICTION_SQE_FLAGS_REQUIRED, "5.10", "demand flags of requests"


class WorkerKind(Number):
    """Kinds of worker threads, as IOWQ_MAX_WORKERS counts them (IO_WQ_*)."""

    BOUND = k.IO_WQ_BOUND, "5.15", "for regular files and block devices"
    UNBOUND = k.IO_WQ_UNBOUND, "5.15", "for everything else"


class ZcrxRegFlags(Bits):
    """Flags of ZCRX_IFQ (ZCRX_REG_*)."""

    IMPORT = k.ZCRX_REG_IMPORT, "6.19", "share a queue that another ring has taken over"
    NODEV = k.ZCRX_REG_NODEV, "7.0", "without a network card; everything is copied"


class ZcrxFeatures(Bits):
    """What zero-copy receives can do here (ZCRX_FEATURE_*)."""

    RX_PAGE_SIZE = k.ZCRX_FEATURE_RX_PAGE_SIZE, "7.0", "the size of the card's pages may be chosen"


class ZcrxControl(Number):
    """What ZCRX_CTRL does (ZCRX_CTRL_*)."""

    FLUSH_RQ = k.ZCRX_CTRL_FLUSH_RQ, "6.19", "have the kernel take what was given back"
    EXPORT = k.ZCRX_CTRL_EXPORT, "6.19", "make a descriptor of the queue"


class ZcrxAreaFlags(Bits):
    """Flags of an area of ZCRX_IFQ (IORING_ZCRX_AREA_*)."""

    DMABUF = k.IORING_ZCRX_AREA_DMABUF, "6.16", "the memory is a dma-buf"


class QueryOp(Number):
    """What QUERY asks for (IO_URING_QUERY_*)."""

    OPCODES = k.IO_URING_QUERY_OPCODES, "6.18", "how many operations, and which flags"
    ZCRX = k.IO_URING_QUERY_ZCRX, "6.19", "what zero-copy receives can do"
    SCQ = k.IO_URING_QUERY_SCQ, "6.19", "the size of the queues' heads"


class BpfCommand(Number):
    """What BPF_FILTER registers (IO_URING_BPF_CMD_*)."""

    FILTER = k.IO_URING_BPF_CMD_FILTER, "7.0", "a filter of requests"


class BpfFilterFlags(Bits):
    """Flags of a filter (IO_URING_BPF_FILTER_*)."""

    DENY_REST = k.IO_URING_BPF_FILTER_DENY_REST, "7.0", "deny operations that have no filter"
    SZ_STRICT = k.IO_URING_BPF_FILTER_SZ_STRICT, "7.0", "refuse a filter of another data size"
