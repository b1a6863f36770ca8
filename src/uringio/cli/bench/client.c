/*
 * Closed-loop echo load: N connections, as many messages in flight on each as are asked for.
 *
 * Usage: client PORT CONNECTIONS SIZE IN_FLIGHT WARM_MS MEASURE_MS CPU SPIN
 *
 * Talks to its starter over the standard streams:
 *   prints "warm"        after connecting and warming up; nothing is in flight, the server is idle
 *   waits for a line     (the starter reads the server's CPU clock meanwhile)
 *   prints one JSON line after the measured window; nothing is in flight again
 *   exits                when standard input ends
 *
 * Every reply is checked: its length and its first 8 bytes (connection and sequence number) always,
 * all of its bytes while warming up. client.py is the same program for machines without a compiler.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_MS 10000
#define EVENTS_MAX 1024
#define CONNECTIONS_MAX 10000
#define SIZE_MAX_BYTES (16u << 20)
#define IN_FLIGHT_MAX 1024
#define INCOMING_MAX_BYTES (64u << 20)
#define MESSAGES_MAX 100000000ull

/* Latency histogram: 64 linear steps per power of two, so a reading is within 1.6 %. */
#define STEPS_LOG2 6
#define STEPS (1u << STEPS_LOG2)
#define BUCKETS ((64 - STEPS_LOG2 + 1) * STEPS)

struct connection {
    int fd;
    int wants_write;
    uint32_t sent, received;               /* bytes of the messages below */
    uint64_t begun;                        /* the newest message */
    uint64_t sending;                      /* the one being sent; begun + 1: none */
    uint64_t expected;                     /* the one whose reply is next; begun + 1: none */
    uint64_t *started_ns;                  /* of message n at n % in_flight */
};

static struct connection *connections;
static unsigned connections_count, in_flight_each;
static uint32_t size, head_size;
static unsigned char *outgoing, *incoming;
static uint64_t histogram[BUCKETS], latency_max_ns;
static int epoll_fd, spin;

static void fail(const char *what)
{
    fprintf(stderr, "client: %s (errno %d: %s)\n", what, errno, strerror(errno));
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void record(uint64_t ns)
{
    unsigned index = (unsigned)ns;
    if (ns >= STEPS) {
        unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
        unsigned shift = exponent - STEPS_LOG2;
        index = (shift + 1) * STEPS + ((unsigned)(ns >> shift) & (STEPS - 1));
    }
    histogram[index]++;
    if (ns > latency_max_ns)
        latency_max_ns = ns;
}

static uint64_t percentile(uint64_t count, double share)
{
    uint64_t rank = (uint64_t)((double)count * share), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > rank) {
            if (i < STEPS)
                return i;
            unsigned shift = i / STEPS - 1;
            return ((uint64_t)(STEPS + i % STEPS) << shift) + ((1ull << shift) >> 1);
        }
    }
    return latency_max_ns;
}

static uint64_t head_of(const struct connection *c, uint64_t sequence)
{
    return ((uint64_t)(c - connections) << 40) | (sequence & 0xffffffffffull);
}

static void watch(struct connection *c, int operation)
{
    struct epoll_event event = {
        .events = EPOLLIN | (c->wants_write ? EPOLLOUT : 0),
        .data.ptr = c,
    };
    if (epoll_ctl(epoll_fd, operation, c->fd, &event))
        fail("epoll_ctl");
}

static void push(struct connection *c)
{
    while (c->sending <= c->begun) {
        /* One buffer serves all connections: send() copies, and the head is rewritten before it. */
        uint64_t head = head_of(c, c->sending);
        memcpy(outgoing, &head, head_size);
        ssize_t n = send(c->fd, outgoing + c->sent, size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            fail("send");
        c->sent += n < 0 ? 0 : (uint32_t)n;
        if (c->sent < size)
            break;
        c->sent = 0;
        c->sending++;
    }
    int wants_write = c->sending <= c->begun;
    if (wants_write != c->wants_write) {
        c->wants_write = wants_write;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void begin(struct connection *c, uint64_t at_ns)
{
    c->begun++;
    c->started_ns[c->begun % in_flight_each] = at_ns;
    push(c);
}

/* Compare *count* bytes with those of the expected message from c->received on. */
static void check(const struct connection *c, const unsigned char *bytes, uint32_t count, int whole)
{
    uint64_t head = head_of(c, c->expected);
    uint32_t in_head = 0, offset = c->received;
    if (offset < head_size) {
        in_head = head_size - offset < count ? head_size - offset : count;
        if (memcmp(bytes, (unsigned char *)&head + offset, in_head)) {
            errno = EBADMSG;
            fail("a reply does not begin as its message did");
        }
    }
    if (whole && memcmp(bytes + in_head, outgoing + offset + in_head, count - in_head)) {
        errno = EBADMSG;
        fail("a reply differs from its message");
    }
}

/* How many bytes may come: what is on its way back, as far as there is room. */
static size_t awaited(const struct connection *c)
{
    size_t bytes = (size_t)(c->begun + 1 - c->expected) * size - c->received;
    return bytes < INCOMING_MAX_BYTES ? bytes : INCOMING_MAX_BYTES;
}

/* Exchange messages until *until_ns*, then let what is in flight come home. Returns replies. */
static uint64_t exchange(uint64_t until_ns, int whole)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t replies = 0, idle_since_ns = now_ns(CLOCK_MONOTONIC);
    uint64_t in_flight = (uint64_t)connections_count * in_flight_each;

    for (unsigned i = 0; i < connections_count; i++)
        for (unsigned j = 0; j < in_flight_each; j++)
            begin(&connections[i], now_ns(CLOCK_MONOTONIC));
    while (in_flight) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, spin ? 0 : STALL_MS);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        if (ready <= 0) {
            if (now_ns(CLOCK_MONOTONIC) - idle_since_ns >= STALL_MS * 1000000ull) {
                errno = ETIMEDOUT;
                fail("no reply from the server");
            }
            continue;
        }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                push(c);
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                continue;
            if (!awaited(c)) {
                errno = EBADMSG;
                fail("bytes that nobody sent");
            }
            ssize_t n = recv(c->fd, incoming, awaited(c), MSG_DONTWAIT);
            if (n < 0) {
                if (errno == EAGAIN || errno == EINTR)
                    continue;
                fail("recv");
            }
            if (n == 0) {
                errno = ECONNRESET;
                fail("the server closed a connection");
            }
            for (unsigned char *bytes = incoming; n > 0;) {
                uint32_t part = size - c->received;
                if ((size_t)n < part)
                    part = (uint32_t)n;
                check(c, bytes, part, whole);
                c->received += part;
                bytes += part;
                n -= part;
                if (c->received < size)
                    break;
                uint64_t at_ns = idle_since_ns = now_ns(CLOCK_MONOTONIC);
                record(at_ns - c->started_ns[c->expected % in_flight_each]);
                c->received = 0;
                c->expected++;
                replies++;
                if (at_ns < until_ns && replies < MESSAGES_MAX)
                    begin(c, at_ns);
                else
                    in_flight--;
            }
        }
    }
    for (unsigned i = 0; i < connections_count; i++)
        if (recv(connections[i].fd, incoming, 1, MSG_DONTWAIT | MSG_PEEK) >= 0) {
            errno = EBADMSG;
            fail("a reply longer than its message, or a connection closed");
        }
    return replies;
}

static void open_connection(struct connection *c, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = STALL_MS / 1000};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    /* One byte there and back: the server has accepted, so its backlog never overflows. */
    if (send(c->fd, "?", 1, MSG_NOSIGNAL) != 1 || recv(c->fd, incoming, 1, 0) != 1)
        fail("first exchange");
    if (incoming[0] != '?') {
        errno = EBADMSG;
        fail("first exchange");
    }
    watch(c, EPOLL_CTL_ADD);
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc != 9) {
        fprintf(stderr,
                "usage: client PORT CONNECTIONS SIZE IN_FLIGHT WARM_MS MEASURE_MS CPU SPIN\n");
        return 2;
    }
    int port = atoi(argv[1]), cpu = atoi(argv[7]);
    uint64_t warm_ns = strtoull(argv[5], NULL, 10) * 1000000ull;
    uint64_t measure_ns = strtoull(argv[6], NULL, 10) * 1000000ull;
    connections_count = (unsigned)atoi(argv[2]);
    size = (uint32_t)strtoul(argv[3], NULL, 10);
    in_flight_each = (unsigned)atoi(argv[4]);
    spin = atoi(argv[8]);
    if (!connections_count || connections_count > CONNECTIONS_MAX || !size ||
        size > SIZE_MAX_BYTES || !in_flight_each || in_flight_each > IN_FLIGHT_MAX) {
        fprintf(stderr, "client: connections, size or messages in flight out of range\n");
        return 2;
    }
    alarm((unsigned)((warm_ns + measure_ns) / 1000000000ull) + 60);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set))
            fail("sched_setaffinity");
    }
    head_size = size < 8 ? size : 8;
    connections = calloc(connections_count, sizeof *connections);
    outgoing = malloc(size);
    uint64_t incoming_bytes = (uint64_t)size * in_flight_each;
    incoming = malloc(incoming_bytes < INCOMING_MAX_BYTES ? incoming_bytes : INCOMING_MAX_BYTES);
    uint64_t *started_ns = calloc((size_t)connections_count * in_flight_each, sizeof *started_ns);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || !outgoing || !incoming || !started_ns || epoll_fd < 0)
        fail("no memory, or no epoll");
    for (uint32_t i = 0; i < size; i++)
        outgoing[i] = (unsigned char)(i * 131u + (i >> 8) * 29u);
    for (unsigned i = 0; i < connections_count; i++) {
        struct connection *c = &connections[i];
        c->sending = c->expected = 1;
        c->started_ns = started_ns + (size_t)i * in_flight_each;
        open_connection(c, port);
    }

    exchange(now_ns(CLOCK_MONOTONIC) + warm_ns, 1);
    memset(histogram, 0, sizeof histogram);
    latency_max_ns = 0;
    puts("warm");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 0;

    uint64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID), from_ns = now_ns(CLOCK_MONOTONIC);
    uint64_t replies = exchange(from_ns + measure_ns, 0);
    uint64_t elapsed_ns = now_ns(CLOCK_MONOTONIC) - from_ns;
    cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
    printf("{\"messages\": %llu, \"elapsed_ns\": %llu, \"client_cpu_ns\": %llu, "
           "\"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, \"max_ns\": %llu}\n",
           (unsigned long long)replies, (unsigned long long)elapsed_ns, (unsigned long long)cpu_ns,
           (unsigned long long)percentile(replies, 0.50),
           (unsigned long long)percentile(replies, 0.99),
           (unsigned long long)percentile(replies, 0.999), (unsigned long long)latency_max_ns);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}
