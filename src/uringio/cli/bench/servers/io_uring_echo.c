/*
 * Echo on io_uring with nothing around it, by the bare system calls: what completion costs where no
 * language is in the way.
 *
 * One io_uring_enter per batch submits and waits. Every connection has one receive armed, which
 * takes a buffer of a shared ring when data is there. What arrived is sent from that buffer, and
 * the next receive submitted with it; what that brings before the send is over waits for it, so
 * that the order holds and a connection holds two buffers at most. A receive that found no buffer
 * is armed again when one returns.
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
    uint16_t buffer;
};

struct connection {
    struct chunk sending, waiting; /* until == 0: none */
    int starved_next;
    int is_ended;
};

static struct connection connections[DESCRIPTORS_MAX];
static int starved = -1; /* connections whose receive found no buffer, linked by starved_next */

static int ring_fd;
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
    long done = syscall(SYS_io_uring_enter, ring_fd, count, wait_nr, IORING_ENTER_GETEVENTS, NULL,
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
    sqe->buf_group = GROUP;
}

static void send_on(int fd)
{
    struct chunk *chunk = &connections[fd].sending;
    struct io_uring_sqe *sqe = request(IORING_OP_SEND, fd, SEND);
    sqe->addr = (uintptr_t)(memory + (size_t)chunk->buffer * RECV_BYTES_MAX + chunk->from);
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

/* Close once nothing of the connection is with the kernel: no receive, and no send. */
static void end(int fd)
{
    struct connection *c = &connections[fd];
    c->is_ended = 1;
    if (c->sending.until)
        return;
    memset(c, 0, sizeof *c);
    close(fd);
}

static void received(int fd, int res, unsigned flags)
{
    struct connection *c = &connections[fd];
    if (res == -ENOBUFS) {
        c->starved_next = starved;
        starved = fd;
        return;
    }
    if (res == -EINTR || res == -EAGAIN) {
        receive(fd);
        return;
    }
    struct chunk chunk = {0, 0, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT)};
    if (res <= 0) {
        if (flags & IORING_CQE_F_BUFFER)
            give_back(chunk.buffer);
        end(fd);
        return;
    }
    chunk.until = (uint32_t)res;
    if (c->sending.until) {
        c->waiting = chunk;
        return;
    }
    c->sending = chunk;
    send_on(fd);
    receive(fd);
}

static void sent(int fd, int res)
{
    struct connection *c = &connections[fd];
    if (res > 0 && c->sending.from + (uint32_t)res < c->sending.until) {
        c->sending.from += (uint32_t)res;
        send_on(fd);
        return;
    }
    uint16_t buffer = c->sending.buffer;
    c->sending.until = 0;
    if (res <= 0) {
        /* The peer is gone. The receive that is armed, or what it brought, ends the connection. */
        shutdown(fd, SHUT_RDWR);
        if (c->waiting.until) {
            give_back(c->waiting.buffer);
            c->waiting.until = 0;
            receive(fd);
        }
    } else if (c->waiting.until) {
        c->sending = c->waiting;
        c->waiting.until = 0;
        send_on(fd);
        receive(fd);
    }
    if (c->is_ended)
        end(fd);
    give_back(buffer);
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

int main(int argc, char **argv)
{
    begin(argc, argv);
    int listening = listener(0);
    open_ring();
    provide_buffers();
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
