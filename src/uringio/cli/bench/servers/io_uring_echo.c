/*
 * Echo on io_uring with nothing around it, by the bare system calls: what completion costs where no
 * language is in the way.
 *
 * One io_uring_enter per batch submits and waits, by the ring's registered number. Every connection
 * has one multishot receive, armed once, which takes a buffer of a shared ring for what is there
 * and looks only when the socket says that something is (POLL_FIRST). What arrived is sent from
 * that buffer; what comes before the send is over waits for it, so that the order holds. A receive
 * that found no buffer is armed again when one returns.
 *
 * Needs Linux 6.0 (multishot accept, provided buffer rings, IORING_SETUP_SINGLE_ISSUER), and runs
 * without IORING_SETUP_DEFER_TASKRUN (6.1) where the kernel refuses that.
 */
#define _GNU_SOURCE
#include "echo_server.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ENTRIES 4096u
#define BUFFERS 256u
#define GROUP 7
enum { ACCEPT, RECV, SEND };

struct chunk {
    uint32_t from, until;
    int next; /* the buffer of what came after it, plus 1; 0 for none */
};

struct connection {
    int first, last; /* the buffers of what is to be sent, plus 1; 0 for none */
    int starved_next;
    int is_ended;
    int is_armed;
};

static struct chunk chunks[BUFFERS];
static struct connection connections[DESCRIPTORS_MAX];
static int starved = -1; /* connections whose receive found no buffer, linked by starved_next */

static int ring_fd;
static unsigned enter_flags = IORING_ENTER_GETEVENTS;
static unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
static unsigned sq_mask, cq_mask, sq_local;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static struct io_uring_buf_ring *buffers;
static unsigned char *memory;
static uint16_t buffers_tail;

static void enter(unsigned wait_nr)
{
    unsigned count = sq_local - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE);
    __atomic_store_n(sq_tail, sq_local, __ATOMIC_RELEASE);
    long done = syscall(SYS_io_uring_enter, ring_fd, count, wait_nr, enter_flags, NULL,
                        (size_t)0);
    if (done < 0 && errno != EINTR && errno != EBUSY && errno != EAGAIN)
        fail("io_uring_enter");
}

static struct io_uring_sqe *request(unsigned opcode, int fd, unsigned kind)
{
    while (sq_local - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) > sq_mask)
        enter(0);
    struct io_uring_sqe *sqe = &sqes[sq_local++ & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (uint8_t)opcode;
    sqe->fd = fd;
    sqe->user_data = (uint64_t)fd << 2 | kind;
    return sqe;
}

static void accept_more(int listening)
{
    struct io_uring_sqe *sqe = request(IORING_OP_ACCEPT, listening, ACCEPT);
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
}

static void receive(int fd)
{
    struct io_uring_sqe *sqe = request(IORING_OP_RECV, fd, RECV);
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->ioprio = IORING_RECVSEND_POLL_FIRST | IORING_RECV_MULTISHOT;
    sqe->buf_group = GROUP;
    connections[fd].is_armed = 1;
}

static void send_on(int fd)
{
    int buffer = connections[fd].first - 1;
    struct chunk *chunk = &chunks[buffer];
    struct io_uring_sqe *sqe = request(IORING_OP_SEND, fd, SEND);
    sqe->addr = (uintptr_t)(memory + (size_t)buffer * RECV_BYTES_MAX + chunk->from);
    sqe->len = chunk->until - chunk->from;
    sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

static void give_back(uint16_t buffer)
{
    struct io_uring_buf *entry = &buffers->bufs[buffers_tail & (BUFFERS - 1)];
    entry->addr = (uintptr_t)(memory + (size_t)buffer * RECV_BYTES_MAX);
    entry->len = RECV_BYTES_MAX;
    entry->bid = buffer;
    __atomic_store_n(&buffers->tail, ++buffers_tail, __ATOMIC_RELEASE);
    if (starved >= 0) {
        int fd = starved;
        starved = connections[fd].starved_next;
        receive(fd);
    }
}

static void end(int fd)
{
    struct connection *c = &connections[fd];
    c->is_ended = 1;
    if (c->first || c->is_armed)
        return;
    memset(c, 0, sizeof *c);
    close(fd);
}

static void received(int fd, int res, unsigned flags)
{
    struct connection *c = &connections[fd];
    if (!(flags & IORING_CQE_F_MORE))
        c->is_armed = 0;
    if (res == -ENOBUFS) {
        c->starved_next = starved;
        starved = fd;
        return;
    }
    int buffer = (int)(flags >> IORING_CQE_BUFFER_SHIFT);
    if (res <= 0) {
        if (flags & IORING_CQE_F_BUFFER)
            give_back((uint16_t)buffer);
        if (res == -EINTR || res == -EAGAIN)
            receive(fd);
        else
            end(fd);
        return;
    }
    chunks[buffer] = (struct chunk){0, (uint32_t)res, 0};
    if (c->first) {
        chunks[c->last - 1].next = buffer + 1;
        c->last = buffer + 1;
    } else {
        c->first = c->last = buffer + 1;
        send_on(fd);
    }
    if (!c->is_armed)
        receive(fd);
}

static void sent(int fd, int res)
{
    struct connection *c = &connections[fd];
    int buffer = c->first - 1;
    struct chunk *chunk = &chunks[buffer];
    if (res > 0 && chunk->from + (uint32_t)res < chunk->until) {
        chunk->from += (uint32_t)res;
        send_on(fd);
        return;
    }
    c->first = chunk->next;
    if (res <= 0) {
        /* The peer is gone: nothing more is sent, and the receive ends the connection. */
        shutdown(fd, SHUT_RDWR);
        while (c->first) {
            int next = chunks[c->first - 1].next;
            give_back((uint16_t)(c->first - 1));
            c->first = next;
        }
    }
    if (c->first)
        send_on(fd);
    else if (c->is_ended)
        end(fd);
    give_back((uint16_t)buffer);
}

static void accepted(int listening, int res, unsigned flags)
{
    if (res >= DESCRIPTORS_MAX)
        close(res);
    else if (res >= 0) {
        no_delay(res);
        receive(res);
    }
    if (!(flags & IORING_CQE_F_MORE))
        accept_more(listening);
}

static void *map(size_t size, int fd, uint64_t offset)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (at == MAP_FAILED)
        fail("mmap");
    return at;
}

static void open_ring(void)
{
    struct io_uring_params p = {0};
    unsigned wanted = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                      IORING_SETUP_SINGLE_ISSUER;
    p.flags = wanted | IORING_SETUP_DEFER_TASKRUN;
    p.cq_entries = 4 * ENTRIES;
    ring_fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (ring_fd < 0 && errno == EINVAL) {
        memset(&p, 0, sizeof p);
        p.flags = wanted;
        p.cq_entries = 4 * ENTRIES;
        ring_fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    }
    if (ring_fd < 0)
        fail("unavailable: io_uring_setup");
    size_t sq_bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    /* IORING_FEAT_SINGLE_MMAP, since 5.4: both queues stand in one mapping. */
    size_t bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    unsigned char *at = map(bytes, ring_fd, IORING_OFF_SQ_RING);
    sqes = map(p.sq_entries * sizeof *sqes, ring_fd, IORING_OFF_SQES);
    sq_head = (unsigned *)(at + p.sq_off.head);
    sq_tail = (unsigned *)(at + p.sq_off.tail);
    sq_mask = *(unsigned *)(at + p.sq_off.ring_mask);
    cq_head = (unsigned *)(at + p.cq_off.head);
    cq_tail = (unsigned *)(at + p.cq_off.tail);
    cq_mask = *(unsigned *)(at + p.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(at + p.cq_off.cqes);
    for (unsigned i = 0; i < p.sq_entries; i++)
        ((unsigned *)(at + p.sq_off.array))[i] = i;
}

static void provide_buffers(void)
{
    buffers = map(BUFFERS * sizeof(struct io_uring_buf), -1, 0);
    memory = map((size_t)BUFFERS * RECV_BYTES_MAX, -1, 0);
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    if (syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_PBUF_RING, &reg, 1u) < 0)
        fail("unavailable: IORING_REGISTER_PBUF_RING");
    for (unsigned i = 0; i < BUFFERS; i++)
        give_back((uint16_t)i);
}

/* Since 5.18; an enter finds the ring without looking at the table of descriptors then. */
static void register_ring(void)
{
    struct io_uring_rsrc_update up = {.offset = -1U, .data = (uint64_t)ring_fd};
    if (syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_RING_FDS, &up, 1u) == 1) {
        ring_fd = (int)up.offset;
        enter_flags |= IORING_ENTER_REGISTERED_RING;
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int listening = listener(0);
    open_ring();
    provide_buffers();
    register_ring();
    announce(listening);
    accept_more(listening);
    for (;;) {
        enter(1);
        /* An enter brings a bounded number of completions that stood deferred: the next one, which
         * finds them and does not sleep, brings more. */
        unsigned head = *cq_head, tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++) {
            struct io_uring_cqe cqe = cqes[head & cq_mask];
            int fd = (int)(cqe.user_data >> 2);
            __atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
            switch (cqe.user_data & 3) {
            case ACCEPT:
                accepted(fd, cqe.res, cqe.flags);
                break;
            case RECV:
                received(fd, cqe.res, cqe.flags);
                break;
            default:
                sent(fd, cqe.res);
            }
        }
    }
}
