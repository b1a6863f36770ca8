/*
 * Echo on epoll with nothing around it: what readiness costs where no language is in the way.
 *
 * Level-triggered, one epoll_wait per batch, one recv and one send per message. A connection whose
 * peer does not read is watched for room instead of for data, and its rest kept meanwhile.
 */
#define _GNU_SOURCE
#include "echo_server.h"
#include <sys/epoll.h>

#define EVENTS_MAX 1024

struct rest {
    unsigned char *bytes;
    uint32_t from, until;
};

static struct rest rests[DESCRIPTORS_MAX];
static unsigned char incoming[RECV_BYTES_MAX];
static int epoll_fd;

static void watch(int fd, int operation, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event))
        fail("epoll_ctl");
}

static void end(int fd)
{
    free(rests[fd].bytes);
    memset(&rests[fd], 0, sizeof rests[fd]);
    close(fd);
}

static void welcome(int listening)
{
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            fail("accept4");
        }
        if (fd >= DESCRIPTORS_MAX) {
            close(fd);
            continue;
        }
        no_delay(fd);
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void echo(int fd)
{
    ssize_t n = recv(fd, incoming, sizeof incoming, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            end(fd);
        return;
    }
    ssize_t sent = send(fd, incoming, (size_t)n, MSG_NOSIGNAL);
    if (sent == n)
        return;
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            end(fd);
            return;
        }
        sent = 0;
    }
    struct rest *rest = &rests[fd];
    rest->from = 0;
    rest->until = (uint32_t)(n - sent);
    rest->bytes = malloc(rest->until);
    if (!rest->bytes)
        fail("malloc");
    memcpy(rest->bytes, incoming + sent, rest->until);
    watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
}

static void go_on(int fd)
{
    struct rest *rest = &rests[fd];
    ssize_t sent = send(fd, rest->bytes + rest->from, rest->until - rest->from, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            end(fd);
        return;
    }
    rest->from += (uint32_t)sent;
    if (rest->from < rest->until)
        return;
    free(rest->bytes);
    rest->bytes = NULL;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    begin(argc, argv);
    int listening = listener(SOCK_NONBLOCK);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail("epoll_create1");
    watch(listening, EPOLL_CTL_ADD, EPOLLIN);
    announce(listening);
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listening)
                welcome(fd);
            else if (rests[fd].bytes)
                go_on(fd);
            else
                echo(fd);
        }
    }
}
