"""Byte layouts: golden sizes and offsets always, the C compiler's where there is one."""

import os
import sys
from struct import Struct
from typing import NamedTuple

import pytest

from tests.sys import header
from uringio._sys import layouts
from uringio._sys.constants import SIZEOF_SQE128


class Field(NamedTuple):
    """A field of a layout: where it lies, and the C members that it covers in their order."""

    offset: int
    size: int
    members: tuple[str, ...]


class Layout(NamedTuple):
    """What a layout must be. `padded_bytes`: bytes of the C struct that it leaves to others."""

    name: str
    c_type: str
    size: int
    fields: tuple[Field, ...]
    padded_bytes: int = 0


def field(offset: int, size: int, *members: str) -> Field:
    return Field(offset, size, members)


# One architecture, the commonest, packs this structure.
EPOLL_GAP = 4 if os.uname().machine == "x86_64" else 0

RING_OFFSETS = ("head", "tail", "ring_mask", "ring_entries")

LAYOUTS = [
    Layout(
        "SQE",
        "struct io_uring_sqe",
        64,
        (
            field(0, 4, "opcode", "flags", "ioprio"),
            field(4, 4, "fd"),
            field(8, 8, "off|addr2"),
            field(16, 8, "addr|splice_off_in"),
            field(24, 4, "len"),
            field(28, 4, "rw_flags|msg_flags|accept_flags|fsync_flags|open_flags|cancel_flags"),
            field(32, 8, "user_data"),
            field(40, 2, "buf_index|buf_group"),
            field(44, 4, "splice_fd_in|file_index"),
        ),
    ),
    Layout(
        "SQE_SHORT",
        "struct io_uring_sqe",
        64,
        (
            field(0, 4, "opcode", "flags", "ioprio"),
            field(4, 4, "fd"),
            field(8, 8, "off"),
            field(16, 8, "addr"),
            field(24, 4, "len"),
            field(28, 4, "rw_flags"),
            field(32, 8, "user_data"),
        ),
    ),
    Layout(
        "CQE",
        "struct io_uring_cqe",
        16,
        (field(0, 8, "user_data"), field(8, 4, "res"), field(12, 4, "flags")),
    ),
    Layout(
        "SQE_FULL",
        "struct io_uring_sqe",
        64,
        (
            field(0, 4, "opcode", "flags", "ioprio"),
            field(4, 4, "fd"),
            field(8, 8, "off|addr2"),
            field(16, 8, "addr"),
            field(24, 4, "len"),
            field(28, 4, "rw_flags|nop_flags|futex_flags|waitid_flags|pipe_flags"),
            field(32, 8, "user_data"),
            field(40, 2, "buf_index|buf_group"),
            field(42, 2, "personality"),
            field(44, 4, "file_index|splice_fd_in|zcrx_ifq_idx|optlen"),
            field(48, 8, "addr3|attr_ptr|optval"),
            field(56, 8, "__pad2|attr_type_mask"),
        ),
    ),
    Layout(
        "CQE_BIG",
        "struct io_uring_cqe",
        32,
        (
            field(0, 8, "user_data"),
            field(8, 4, "res"),
            field(12, 4, "flags"),
            field(16, 8, "big_cqe[0]"),
            field(24, 8, "big_cqe[1]"),
        ),
        padded_bytes=-16,  # a flexible array, which has no size
    ),
    Layout(
        "PARAMS",
        "struct io_uring_params",
        120,
        (
            field(0, 4, "sq_entries"),
            field(4, 4, "cq_entries"),
            field(8, 4, "flags"),
            field(12, 4, "sq_thread_cpu"),
            field(16, 4, "sq_thread_idle"),
            field(20, 4, "features"),
            field(24, 4, "wq_fd"),
            *(
                field(40 + 4 * at, 4, f"sq_off.{name}")
                for at, name in enumerate((*RING_OFFSETS, "flags", "dropped", "array", "resv1"))
            ),
            field(72, 8, "sq_off.user_addr|sq_off.resv2"),
            *(
                field(80 + 4 * at, 4, f"cq_off.{name}")
                for at, name in enumerate((*RING_OFFSETS, "overflow", "cqes", "flags", "resv1"))
            ),
            field(112, 8, "cq_off.user_addr|cq_off.resv2"),
        ),
    ),
    Layout(
        "GETEVENTS_ARG",
        "struct io_uring_getevents_arg",
        24,
        (
            field(0, 8, "sigmask"),
            field(8, 4, "sigmask_sz"),
            field(12, 4, "min_wait_usec"),
            field(16, 8, "ts"),
        ),
    ),
    Layout(
        "TIMESPEC",
        "struct __kernel_timespec",
        16,
        (field(0, 8, "tv_sec"), field(8, 8, "tv_nsec")),
    ),
    Layout(
        "BUF",
        "struct io_uring_buf",
        14,
        (field(0, 8, "addr"), field(8, 4, "len"), field(12, 2, "bid")),
        padded_bytes=2,  # in entry 0 the ring's tail, which is not ours to zero
    ),
    Layout(
        "BUF_REG",
        "struct io_uring_buf_reg",
        40,
        (
            field(0, 8, "ring_addr"),
            field(8, 4, "ring_entries"),
            field(12, 2, "bgid"),
            field(14, 2, "flags|pad"),
            field(16, 4, "min_left"),
        ),
    ),
    Layout(
        "RSRC_UPDATE",
        "struct io_uring_rsrc_update",
        16,
        (field(0, 4, "offset"), field(8, 8, "data")),
    ),
    Layout(
        "RSRC_REGISTER",
        "struct io_uring_rsrc_register",
        32,
        (field(0, 4, "nr"), field(4, 4, "flags"), field(16, 8, "data"), field(24, 8, "tags")),
    ),
    Layout(
        "RSRC_UPDATE2",
        "struct io_uring_rsrc_update2",
        32,
        (field(0, 4, "offset"), field(8, 8, "data"), field(16, 8, "tags"), field(24, 4, "nr")),
    ),
    Layout(
        "PROBE_HEAD",
        "struct io_uring_probe",
        16,
        (field(0, 1, "last_op"), field(1, 1, "ops_len")),
    ),
    Layout(
        "PROBE_OP",
        "struct io_uring_probe_op",
        8,
        (field(0, 1, "op"), field(2, 2, "flags")),
    ),
    Layout("IOVEC", "struct iovec", 16, (field(0, 8, "iov_base"), field(8, 8, "iov_len"))),
    Layout(
        "MSGHDR",
        "struct msghdr",
        56,
        (
            field(0, 8, "msg_name"),
            field(8, 4, "msg_namelen"),
            field(16, 8, "msg_iov"),
            field(24, 8, "msg_iovlen"),
            field(32, 8, "msg_control"),
            field(40, 8, "msg_controllen"),
            field(48, 4, "msg_flags"),
        ),
    ),
    Layout(
        "CMSGHDR",
        "struct cmsghdr",
        16,
        (field(0, 8, "cmsg_len"), field(8, 4, "cmsg_level"), field(12, 4, "cmsg_type")),
    ),
    Layout(
        "UCRED", "struct ucred", 12, (field(0, 4, "pid"), field(4, 4, "uid"), field(8, 4, "gid"))
    ),
    Layout(
        "OPEN_HOW",
        "struct open_how",
        24,
        (field(0, 8, "flags"), field(8, 8, "mode"), field(16, 8, "resolve")),
    ),
    Layout(
        "STATX",
        "struct statx",
        256,
        (
            field(0, 4, "stx_mask"),
            field(4, 4, "stx_blksize"),
            field(8, 8, "stx_attributes"),
            field(16, 4, "stx_nlink"),
            field(20, 4, "stx_uid"),
            field(24, 4, "stx_gid"),
            field(28, 2, "stx_mode"),
            field(32, 8, "stx_ino"),
            field(40, 8, "stx_size"),
            field(48, 8, "stx_blocks"),
            field(56, 8, "stx_attributes_mask"),
            field(64, 8, "stx_atime.tv_sec"),
            field(72, 4, "stx_atime.tv_nsec"),
            field(80, 8, "stx_btime.tv_sec"),
            field(88, 4, "stx_btime.tv_nsec"),
            field(96, 8, "stx_ctime.tv_sec"),
            field(104, 4, "stx_ctime.tv_nsec"),
            field(112, 8, "stx_mtime.tv_sec"),
            field(120, 4, "stx_mtime.tv_nsec"),
            field(128, 4, "stx_rdev_major"),
            field(132, 4, "stx_rdev_minor"),
            field(136, 4, "stx_dev_major"),
            field(140, 4, "stx_dev_minor"),
            field(152, 4, "stx_dio_mem_align"),
            field(156, 4, "stx_dio_offset_align"),
        ),
    ),
    Layout(
        "SYNC_CANCEL_REG",
        "struct io_uring_sync_cancel_reg",
        64,
        (
            field(0, 8, "addr"),
            field(8, 4, "fd"),
            field(12, 4, "flags"),
            field(16, 8, "timeout.tv_sec"),
            field(24, 8, "timeout.tv_nsec"),
            field(32, 1, "opcode"),
        ),
    ),
    Layout(
        "BUF_STATUS",
        "struct io_uring_buf_status",
        40,
        (
            field(0, 4, "buf_group"),
            field(4, 4, "head"),
        ),
    ),
    Layout(
        "RESTRICTION",
        "struct io_uring_restriction",
        16,
        (
            field(0, 2, "opcode"),
            field(2, 1, "register_op|sqe_op|sqe_flags"),
        ),
    ),
    Layout(
        "TASK_RESTRICTION",
        "struct io_uring_task_restriction",
        16,
        (
            field(0, 2, "flags"),
            field(2, 2, "nr_res"),
        ),
    ),
    Layout(
        "CLOCK_REGISTER",
        "struct io_uring_clock_register",
        16,
        (field(0, 4, "clockid"),),
    ),
    Layout(
        "CLONE_BUFFERS",
        "struct io_uring_clone_buffers",
        32,
        (
            field(0, 4, "src_fd"),
            field(4, 4, "flags"),
            field(8, 4, "src_off"),
            field(12, 4, "dst_off"),
            field(16, 4, "nr"),
        ),
    ),
    Layout(
        "NAPI",
        "struct io_uring_napi",
        16,
        (
            field(0, 4, "busy_poll_to"),
            field(4, 1, "prefer_busy_poll"),
        ),
    ),
    Layout(
        "FILE_INDEX_RANGE",
        "struct io_uring_file_index_range",
        16,
        (
            field(0, 4, "off"),
            field(4, 4, "len"),
        ),
    ),
    Layout(
        "REGION_DESC",
        "struct io_uring_region_desc",
        64,
        (
            field(0, 8, "user_addr"),
            field(8, 8, "size"),
            field(16, 4, "flags"),
            field(20, 4, "id"),
            field(24, 8, "mmap_offset"),
        ),
    ),
    Layout(
        "MEM_REGION_REG",
        "struct io_uring_mem_region_reg",
        32,
        (
            field(0, 8, "region_uptr"),
            field(8, 8, "flags"),
        ),
    ),
    Layout(
        "REG_WAIT",
        "struct io_uring_reg_wait",
        64,
        (
            field(0, 8, "ts.tv_sec"),
            field(8, 8, "ts.tv_nsec"),
            field(16, 4, "min_wait_usec"),
            field(20, 4, "flags"),
            field(24, 8, "sigmask"),
            field(32, 4, "sigmask_sz"),
        ),
    ),
    Layout(
        "RECVMSG_OUT",
        "struct io_uring_recvmsg_out",
        16,
        (
            field(0, 4, "namelen"),
            field(4, 4, "controllen"),
            field(8, 4, "payloadlen"),
            field(12, 4, "flags"),
        ),
    ),
    Layout(
        "ATTR_PI",
        "struct io_uring_attr_pi",
        32,
        (
            field(0, 2, "flags"),
            field(2, 2, "app_tag"),
            field(4, 4, "len"),
            field(8, 8, "addr"),
            field(16, 8, "seed"),
        ),
    ),
    Layout(
        "QUERY_HDR",
        "struct io_uring_query_hdr",
        40,
        (
            field(0, 8, "next_entry"),
            field(8, 8, "query_data"),
            field(16, 4, "query_op"),
            field(20, 4, "size"),
            field(24, 4, "result"),
        ),
    ),
    Layout(
        "QUERY_OPCODE",
        "struct io_uring_query_opcode",
        48,
        (
            field(0, 4, "nr_request_opcodes"),
            field(4, 4, "nr_register_opcodes"),
            field(8, 8, "feature_flags"),
            field(16, 8, "ring_setup_flags"),
            field(24, 8, "enter_flags"),
            field(32, 8, "sqe_flags"),
            field(40, 4, "nr_query_opcodes"),
        ),
    ),
    Layout(
        "QUERY_ZCRX",
        "struct io_uring_query_zcrx",
        40,
        (
            field(0, 8, "register_flags"),
            field(8, 8, "area_flags"),
            field(16, 4, "nr_ctrl_opcodes"),
            field(20, 4, "features"),
            field(24, 4, "rq_hdr_size"),
            field(28, 4, "rq_hdr_alignment"),
        ),
    ),
    Layout(
        "QUERY_SCQ",
        "struct io_uring_query_scq",
        16,
        (
            field(0, 8, "hdr_size"),
            field(8, 8, "hdr_alignment"),
        ),
    ),
    Layout(
        "BPF",
        "struct io_uring_bpf",
        72,
        (
            field(0, 2, "cmd_type"),
            field(2, 2, "cmd_flags"),
            field(8, 4, "filter.opcode"),
            field(12, 4, "filter.flags"),
            field(16, 4, "filter.filter_len"),
            field(20, 1, "filter.pdu_size"),
            field(24, 8, "filter.filter_ptr"),
        ),
    ),
    Layout(
        "BPF_CTX",
        "struct io_uring_bpf_ctx",
        40,
        (
            field(0, 8, "user_data"),
            field(8, 1, "opcode"),
            field(9, 1, "sqe_flags"),
            field(10, 1, "pdu_size"),
            field(16, 8, "open.flags"),
            field(24, 8, "open.mode"),
            field(32, 8, "open.resolve"),
        ),
    ),
    Layout(
        "ZCRX_RQE",
        "struct io_uring_zcrx_rqe",
        16,
        (
            field(0, 8, "off"),
            field(8, 4, "len"),
        ),
    ),
    Layout(
        "ZCRX_CQE",
        "struct io_uring_zcrx_cqe",
        16,
        (field(0, 8, "off"),),
    ),
    Layout(
        "ZCRX_OFFSETS",
        "struct io_uring_zcrx_offsets",
        32,
        (
            field(0, 4, "head"),
            field(4, 4, "tail"),
            field(8, 4, "rqes"),
        ),
    ),
    Layout(
        "ZCRX_AREA_REG",
        "struct io_uring_zcrx_area_reg",
        48,
        (
            field(0, 8, "addr"),
            field(8, 8, "len"),
            field(16, 8, "rq_area_token"),
            field(24, 4, "flags"),
            field(28, 4, "dmabuf_fd"),
        ),
    ),
    Layout(
        "ZCRX_IFQ_REG",
        "struct io_uring_zcrx_ifq_reg",
        96,
        (
            field(0, 4, "if_idx"),
            field(4, 4, "if_rxq"),
            field(8, 4, "rq_entries"),
            field(12, 4, "flags"),
            field(16, 8, "area_ptr"),
            field(24, 8, "region_ptr"),
            field(32, 4, "offsets.head"),
            field(36, 4, "offsets.tail"),
            field(40, 4, "offsets.rqes"),
            field(64, 4, "zcrx_id"),
            field(68, 4, "rx_buf_len"),
        ),
    ),
    Layout(
        "ZCRX_CTRL",
        "struct zcrx_ctrl",
        72,
        (
            field(0, 4, "zcrx_id"),
            field(4, 4, "op"),
            field(24, 4, "zc_export.zcrx_fd"),
        ),
    ),
    Layout(
        "FUTEX_WAITV",
        "struct futex_waitv",
        24,
        (
            field(0, 8, "val"),
            field(8, 8, "uaddr"),
            field(16, 4, "flags"),
        ),
    ),
    Layout(
        "SIGINFO_CHILD",
        "siginfo_t",
        128,
        (
            field(0, 4, "si_signo"),
            field(4, 4, "si_errno"),
            field(8, 4, "si_code"),
            field(16, 4, "si_pid"),
            field(20, 4, "si_uid"),
            field(24, 4, "si_status"),
        ),
    ),
    Layout(
        "EPOLL_EVENT",
        "struct epoll_event",
        16 - EPOLL_GAP,
        (field(0, 4, "events"), field(8 - EPOLL_GAP, 8, "data")),
    ),
]

BY_NAME = {layout.name: layout for layout in LAYOUTS}
FIELDS = [(layout, one) for layout in LAYOUTS for one in layout.fields]

# Members that came after their structs, which installed headers may lack: the kernel that did it.
YOUNG = {
    "min_wait_usec": "6.12",
    "opcode": "6.6",
    "stx_dio_mem_align": "6.1",
    "stx_dio_offset_align": "6.1",
    "min_left": "7.1",
    "__pad2": "5.1",
    "op": "6.19",
}

# Structs that installed headers may lack as a whole: the kernel that brought them.
YOUNG_STRUCTS = {
    **{
        f"struct io_uring_{name}": since
        for name, since in {
            "buf_status": "6.8",
            "napi": "6.9",
            "clock_register": "6.12",
            "clone_buffers": "6.12",
            "region_desc": "6.13",
            "mem_region_reg": "6.13",
            "reg_wait": "6.13",
            "attr_pi": "6.14",
            "task_restriction": "7.0",
            "query_hdr": "6.18",
            "query_opcode": "6.18",
            "query_zcrx": "6.19",
            "query_scq": "6.19",
            "bpf": "7.0",
            "bpf_ctx": "7.0",
            "zcrx_rqe": "6.15",
            "zcrx_cqe": "6.15",
            "zcrx_offsets": "6.15",
            "zcrx_area_reg": "6.15",
            "zcrx_ifq_reg": "6.15",
        }.items()
    },
    "struct zcrx_ctrl": "6.19",
}


def place_of(c_type: str, member: str) -> tuple[str, str]:
    """Spell a member's offset and size in C."""
    return f"offsetof({c_type}, {member})", f"sizeof((({c_type} *)0)->{member})"


def aliases(one: Field) -> list[list[str]]:
    """List the members of a field in their order, each with the other names of the same place."""
    return [member.split("|") for member in one.members]


@pytest.fixture(scope="module")
def in_headers() -> dict[str, int | None]:
    """Sizes, and offsets and sizes of all members, by their C expressions."""
    expressions = [f"sizeof({layout.c_type})" for layout in LAYOUTS]
    for layout, one in FIELDS:
        for names in aliases(one):
            for name in names:
                expressions += place_of(layout.c_type, name)
    return header.evaluate(expressions)


def place(struct: Struct, index: int, count: int) -> tuple[int, int]:
    """Find where the field lies, by packing ones into it and zeros into all others."""
    values = [0] * count
    for ones in (0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        try:
            values[index] = -1
            raw = struct.pack(*values)
        except Exception:
            values[index] = ones
            try:
                raw = struct.pack(*values)
            except Exception:
                break
        marked = [at for at, byte in enumerate(raw) if byte == 0xFF]
    assert marked == list(range(marked[0], marked[-1] + 1))
    return marked[0], len(marked)


def test_every_layout_is_covered() -> None:
    """A layout that is added to the module gets its row here."""
    structs = {name for name, value in vars(layouts).items() if isinstance(value, Struct)}
    assert structs == set(BY_NAME)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
def test_layout_is_golden(layout: Layout) -> None:
    """Size, order, offset and width of every field are as written down, on any machine."""
    struct: Struct = getattr(layouts, layout.name)
    assert struct.format.startswith("=")
    assert struct.size == layout.size
    count = len(struct.unpack(bytes(struct.size)))
    assert count == len(layout.fields)
    found = [place(struct, index, count) for index in range(count)]
    assert found == [(one.offset, one.size) for one in layout.fields]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
def test_pad_bytes_are_zeroed(layout: Layout) -> None:
    """Packing leaves nothing of what the slot held before: the kernel refuses stray bytes."""
    struct: Struct = getattr(layouts, layout.name)
    raw = bytearray(b"\xaa" * struct.size)
    struct.pack_into(raw, 0, *[0] * len(layout.fields))
    assert raw == bytes(struct.size)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
def test_size_is_the_compilers(layout: Layout, in_headers: dict[str, int | None]) -> None:
    """The layout is as long as the C struct in the installed headers."""
    size = in_headers[f"sizeof({layout.c_type})"]
    if size is None:
        assert layout.c_type in YOUNG_STRUCTS
        pytest.skip(f"the installed headers are older than {layout.c_type}")
    assert size == layout.size + layout.padded_bytes


@pytest.mark.parametrize(
    ("layout", "one"),
    FIELDS,
    ids=[f"{layout.name}-{'+'.join(one.members)}" for layout, one in FIELDS],
)
def test_field_is_the_compilers(
    layout: Layout, one: Field, in_headers: dict[str, int | None]
) -> None:
    """
    The field covers exactly the members that it says it does, by the installed headers.

    A member that they are too old to know is skipped, by name, if it is known to be young.
    """
    offset = one.offset
    for names in aliases(one):
        places = {
            (in_headers[at], in_headers[size])
            for at, size in (place_of(layout.c_type, name) for name in names)
        } - {(None, None)}
        if not places and in_headers[f"sizeof({layout.c_type})"] is None:
            assert layout.c_type in YOUNG_STRUCTS
            return  # test_size_is_the_compilers says so, once for the struct
        if not places:
            assert names[0] in YOUNG, f"the installed headers know none of {names}"
            pytest.skip(
                f"the installed headers are older than {layout.c_type}.{names[0]} "
                f"(Linux {YOUNG[names[0]]})"
            )
        [(found_offset, found_size)] = places
        assert found_offset == offset
        assert found_size is not None
        offset += found_size
    assert offset == one.offset + one.size


def test_the_tail_of_a_buffer_ring_lies_behind_entry_0() -> None:
    """The tail word is the two bytes that packing an entry leaves alone."""
    assert layouts.BUF.size == layouts.BUF_RING_TAIL_OFFSET
    assert layouts.BUF_RING_TAIL_OFFSET + 2 == layouts.BUF_SIZE


def test_ancillary_items_are_aligned_as_the_compiler_does() -> None:
    """CMSG_SPACE rounds to our alignment, behind a header of our size."""
    size = layouts.CMSGHDR.size
    values = header.evaluate(["CMSG_SPACE(1)", "CMSG_LEN(1)"])
    assert values == {"CMSG_SPACE(1)": size + layouts.CMSG_ALIGN, "CMSG_LEN(1)": size + 1}


def test_a_command_of_80_bytes_fills_the_larger_request() -> None:
    """It starts where the compiler has it, and ends with the request."""
    value = header.evaluate(["offsetof(struct io_uring_sqe, cmd)"]).popitem()[1]
    assert value == layouts.SQE_COMMAND_OFFSET
    assert layouts.SQE_COMMAND_OFFSET + layouts.SQE_COMMAND_BYTES == SIZEOF_SQE128


def test_the_compiler_puts_the_tail_there_too() -> None:
    """Struct io_uring_buf_ring lays its tail over the entries at our offset."""
    value = header.evaluate(["offsetof(struct io_uring_buf_ring, tail)"]).popitem()[1]
    assert value == layouts.BUF_RING_TAIL_OFFSET


# Structures without a layout of their own, and why.
PARTS: dict[str, str] = {
    "io_sqring_offsets": "the fields of PARAMS from byte 40 on",
    "io_cqring_offsets": "the fields of PARAMS from byte 80 on",
    "io_timespec": "TIMESPEC, by the name that one header gives it",
    "io_uring_buf_ring": "entries like BUF, with a tail in the first",
    "io_uring_files_update": "the same as RSRC_UPDATE",
    "io_uring_bpf_filter": "a part of BPF",
    "zcrx_ctrl_export": "a part of ZCRX_CTRL",
    "zcrx_ctrl_flush_rq": "a part of ZCRX_CTRL",
    "io_uring_notification_slot": "of no kernel that was released",
    "io_uring_notification_register": "of no kernel that was released",
}


def test_every_structure_of_the_headers_has_a_layout() -> None:
    """None that the installed headers know is missing."""
    _, structures = header.names()
    assert len(structures) > 15
    ours = {one.c_type.removeprefix("struct ") for one in LAYOUTS}
    assert structures - ours <= set(PARTS)


def test_how_much_the_headers_confirm(
    in_headers: dict[str, int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """How many structures and members they know is printed, and which structures they do not."""
    types = sorted({one.c_type for one in LAYOUTS})
    unknown = [one for one in types if in_headers[f"sizeof({one})"] is None]
    places = [one for one in in_headers if one.startswith("offsetof")]
    known = sum(in_headers[one] is not None for one in places)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(types) - len(unknown)} of {len(types)} structures, and {known} of "
            f"{len(places)} members, stand in the installed headers, which do not know "
            f"{', '.join(one.removeprefix('struct ') for one in unknown) or 'none'}\n"
        )
    assert set(unknown) <= set(YOUNG_STRUCTS)
    assert known > 100
