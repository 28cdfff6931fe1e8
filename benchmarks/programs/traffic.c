/* Traffic for the benchmarks, the same for every peer: frames, questions and connections.
 *
 *   traffic blast MAC SOURCE DESTINATION LENGTH SECONDS   UDP frames of LENGTH bytes from eth0, as fast as they go
 *   traffic sink                                          take UDP on the port of `blast`, so that nobody refuses it
 *   traffic answer                                        a TCP server: one byte back for each byte
 *   traffic ask HOST SECONDS                              one question at a time; nanoseconds: median, p99, count
 *   traffic accept                                        a TCP server: a connection, a byte, a byte back, closed
 *   traffic connect HOST SECONDS                          such connections, 16 at a time; connections, seconds
 *   traffic count                                         for each line read: frames that eth0 has received
 *
 * Rule of this file: nothing here waits by spinning, so that on two cores it is not what is measured; frames are
 * handed to the kernel 32 at a time, which one core does faster than any peer here forwards them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, SINK_PORT = 9, ANSWER_PORT = 7001, ACCEPT_PORT = 7002, AT_A_TIME = 16, SAMPLES = 4000000 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (host != NULL && inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", host);
        exit(2);
    }
    return address;
}

static void read_mac(const char *text, unsigned char *mac) {
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
        fprintf(stderr, "%s is no MAC address\n", text);
        exit(2);
    }
}

static void put16(unsigned char *at, unsigned value) {
    at[0] = value >> 8;
    at[1] = value;
}

static int blast(const char *to, const char *source, const char *destination, int length, double seconds) {
    unsigned char frame[2048] = {0};
    char own[32];
    FILE *file = fopen("/sys/class/net/eth0/address", "r");
    if (file == NULL || fgets(own, sizeof own, file) == NULL || length < 42 || length > 1514) {
        fprintf(stderr, "no eth0 here, or a length that is not 42 to 1514\n");
        return 2;
    }
    read_mac(to, frame);
    read_mac(own, frame + 6);
    put16(frame + 12, ETH_P_IP);
    unsigned char *ip = frame + 14, *udp = ip + 20;
    ip[0] = 0x45;
    ip[6] = 0x40; /* don't fragment, as the kernel's own sockets say */
    ip[8] = 64;
    ip[9] = IPPROTO_UDP;
    put16(ip + 2, length - 14);
    inet_pton(AF_INET, source, ip + 12);
    inet_pton(AF_INET, destination, ip + 16);
    unsigned sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += ip[i] << 8 | ip[i + 1];
    sum = (sum >> 16) + (sum & 0xffff);
    put16(ip + 10, ~(sum + (sum >> 16)));
    put16(udp, 40000);
    put16(udp + 2, SINK_PORT);
    put16(udp + 4, length - 34); /* checksum 0: not computed (RFC 768) */

    int out = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex("eth0")};
    if (out < 0 || bind(out, (void *)&link, sizeof link) < 0)
        fail("packet socket");
    struct iovec part = {frame, length};
    struct mmsghdr batch[BATCH];
    memset(batch, 0, sizeof batch);
    for (int i = 0; i < BATCH; i++) {
        batch[i].msg_hdr.msg_iov = &part;
        batch[i].msg_hdr.msg_iovlen = 1;
    }
    long sent = 0;
    int64_t began = now(), end = began + (int64_t)(seconds * 1e9), time;
    do {
        int done = sendmmsg(out, batch, BATCH, 0); /* an error is a full queue: what is dropped is not counted */
        if (done > 0)
            sent += done;
        time = now();
    } while (time < end);
    printf("%ld %.6f\n", sent, (time - began) / 1e9);
    return 0;
}

static _Noreturn void sink(void) {
    int in = socket(AF_INET, SOCK_DGRAM, 0), little = 1;
    struct sockaddr_in address = address_of(NULL, SINK_PORT);
    setsockopt(in, SOL_SOCKET, SO_RCVBUF, &little, sizeof little); /* what arrives was counted at the interface */
    if (in < 0 || bind(in, (void *)&address, sizeof address) < 0)
        fail("bind");
    for (;;)
        pause();
}

static int listen_at(int port, int defer) {
    int in = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = address_of(NULL, port);
    setsockopt(in, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (defer)
        setsockopt(in, IPPROTO_TCP, TCP_DEFER_ACCEPT, &yes, sizeof yes);
    if (in < 0 || bind(in, (void *)&address, sizeof address) < 0 || listen(in, 512) < 0)
        fail("listen");
    return in;
}

static _Noreturn void answer(void) {
    int in = listen_at(ANSWER_PORT, 0), yes = 1;
    for (;;) {
        char byte;
        int one = accept(in, NULL, NULL);
        setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        while (read(one, &byte, 1) == 1 && write(one, &byte, 1) == 1)
            ;
        close(one);
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static int ask(const char *host, double seconds) {
    struct sockaddr_in address = address_of(host, ANSWER_PORT);
    uint32_t *took = malloc(SAMPLES * sizeof *took);
    int out = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    char byte = 'x';
    if (took == NULL || connect(out, (void *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    for (int i = 0; i < 100; i++) /* neighbours, caches */
        if (write(out, &byte, 1) != 1 || read(out, &byte, 1) != 1)
            fail("warm-up");
    long count = 0;
    int64_t before = now(), end = before + (int64_t)(seconds * 1e9);
    while (before < end && count < SAMPLES) {
        if (write(out, &byte, 1) != 1 || read(out, &byte, 1) != 1)
            fail("question");
        int64_t after = now();
        took[count++] = after - before;
        before = after;
    }
    qsort(took, count, sizeof *took, by_size);
    printf("%u %u %ld\n", took[count / 2], took[count * 99 / 100], count);
    return 0;
}

static _Noreturn void accept_all(void) {
    int in = listen_at(ACCEPT_PORT, 1);
    for (;;) {
        char byte;
        int one = accept(in, NULL, NULL);
        if (one < 0)
            continue;
        if (read(one, &byte, 1) == 1 && write(one, &byte, 1) != 1)
            errno = 0;
        close(one);
    }
}

static int open_one(int poller, const struct sockaddr_in *address) {
    int out = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(out, (const void *)address, sizeof *address) < 0 && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = out};
    epoll_ctl(poller, EPOLL_CTL_ADD, out, &event);
    return out;
}

static int connect_many(const char *host, double seconds) {
    struct sockaddr_in address = address_of(host, ACCEPT_PORT);
    int poller = epoll_create1(0);
    char byte = 'x';
    long done = 0;
    for (int i = 0; i < AT_A_TIME; i++)
        open_one(poller, &address);
    int64_t began = now(), end = began + (int64_t)(seconds * 1e9), time = began;
    while (time < end) {
        struct epoll_event events[AT_A_TIME];
        int count = epoll_wait(poller, events, AT_A_TIME, 1000);
        for (int i = 0; i < count; i++) {
            int one = events[i].data.fd;
            if (events[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.fd = one};
                if (write(one, &byte, 1) != 1)
                    fail("request");
                epoll_ctl(poller, EPOLL_CTL_MOD, one, &event);
            } else if (read(one, &byte, 1) == 1) {
                done++;
                close(one);
                open_one(poller, &address);
            } else {
                fail("response");
            }
        }
        time = now();
    }
    printf("%ld %.6f\n", done, (time - began) / 1e9);
    return 0;
}

static int count_frames(void) {
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        FILE *file = fopen("/sys/class/net/eth0/statistics/rx_packets", "r");
        if (file == NULL || fgets(line, sizeof line, file) == NULL)
            fail("eth0");
        fclose(file);
        fputs(line, stdout);
        fflush(stdout);
    }
    return 0;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "blast") && count == 7)
        return blast(words[2], words[3], words[4], atoi(words[5]), atof(words[6]));
    if (!strcmp(what, "sink"))
        sink();
    if (!strcmp(what, "answer"))
        answer();
    if (!strcmp(what, "ask") && count == 4)
        return ask(words[2], atof(words[3]));
    if (!strcmp(what, "accept"))
        accept_all();
    if (!strcmp(what, "connect") && count == 4)
        return connect_many(words[2], atof(words[3]));
    if (!strcmp(what, "count"))
        return count_frames();
    fprintf(stderr, "usage: traffic blast|sink|answer|ask|accept|connect|count ...\n");
    return 2;
}
