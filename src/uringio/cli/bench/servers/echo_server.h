/*
 * What the two echo servers in C share: arguments as the servers in Python take them, a bound in
 * time, a listening socket on a free port of the loopback address, one line of output.
 */
#ifndef ECHO_SERVER_H
#define ECHO_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECV_BYTES_MAX 65536u
#define DESCRIPTORS_MAX 65536

static void fail(const char *what)
{
    fprintf(stderr, "%s: errno %d: %s\n", what, errno, strerror(errno));
    exit(1);
}

static void no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Read --cpu=N and --seconds-max=N, pin the process, bound its life. */
static void begin(int argc, char **argv)
{
    int cpu = -1, seconds_max = 120;
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--cpu=%d", &cpu) != 1 &&
            sscanf(argv[i], "--seconds-max=%d", &seconds_max) != 1) {
            fprintf(stderr, "usage: %s [--cpu=N] [--seconds-max=N]\n", argv[0]);
            exit(2);
        }
    /* A server never outlives a starter that died by much. */
    alarm((unsigned)seconds_max);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set))
            fail("sched_setaffinity");
    }
}

static int listener(int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024))
        fail("listen");
    return fd;
}

static void announce(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size))
        fail("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

#endif
