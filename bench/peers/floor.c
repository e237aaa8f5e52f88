/* The floor: the least that a server without batching does. For each published line it makes one frame and calls
 * send() once for each subscriber. One thread, one epoll, no buffers unless the kernel takes less than all.
 *
 * Usage: floor PORT. GET /ws subscribes over WebSocket, GET /sse to Server-Sent Events; after any other request the
 * lines that come are published. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FILES 32768
#define LINE_BYTES (128 * 1024)

enum role { UNKNOWN, WEBSOCKET, EVENT_SOURCE, PUBLISHER };

struct client {
    enum role role;
    int place;                 /* in the list of subscribers */
    char *in;                  /* a request or line that is not complete */
    size_t n_in;
    char *out;                 /* what the kernel did not take */
    size_t n_out;
};

static int epoll, listener, n_subscribers;
static int subscribers[MAX_FILES];
static struct client clients[MAX_FILES];
static char line[2 * LINE_BYTES], frame[2 * LINE_BYTES];

static void watch(int fd, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll, operation, fd, &event);
}

static void end(int fd)
{
    struct client *client = &clients[fd];
    if (client->role == WEBSOCKET || client->role == EVENT_SOURCE) {
        int other = subscribers[--n_subscribers];
        subscribers[client->place] = other;
        clients[other].place = client->place;
    }
    free(client->in);
    free(client->out);
    memset(client, 0, sizeof *client);
    close(fd);
}

static void send_rest(int fd)
{
    struct client *client = &clients[fd];
    ssize_t sent = send(fd, client->out, client->n_out, MSG_NOSIGNAL);
    if (sent < 0)
        return;
    client->n_out -= (size_t)sent;
    memmove(client->out, client->out + sent, client->n_out);
    if (!client->n_out)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static void queue(int fd, const char *data, size_t size)
{
    struct client *client = &clients[fd];
    if (!client->n_out)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    client->out = realloc(client->out, client->n_out + size);
    memcpy(client->out + client->n_out, data, size);
    client->n_out += size;
}

static inline void deliver(int fd, const char *data, size_t size)
{
    if (clients[fd].n_out) {
        queue(fd, data, size);
        return;
    }
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent != (ssize_t)size && (sent >= 0 || errno == EAGAIN))
        queue(fd, data + (sent > 0 ? sent : 0), size - (size_t)(sent > 0 ? sent : 0));
}

static size_t websocket_frame(const char *data, size_t size)
{
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(size < 126 ? size : 126);
    if (size >= 126) {
        frame[2] = (char)(size >> 8);
        frame[3] = (char)size;
    }
    memcpy(frame + head, data, size);
    return head + size;
}

static size_t event_block(const char *data, size_t size)
{
    static unsigned long number;
    char id[32];
    int length = snprintf(id, sizeof id, "id: %lu\n", ++number);
    int head = sprintf(frame, "%zx\r\n%sdata: ", (size_t)length + 6 + size + 2, id);
    memcpy(frame + head, data, size);
    memcpy(frame + (size_t)head + size, "\n\n\r\n", 4);
    return (size_t)head + size + 4;
}

static void publish(const char *data, size_t size)
{
    if (!n_subscribers)
        return;
    size_t whole = clients[subscribers[0]].role == WEBSOCKET ? websocket_frame(data, size) : event_block(data, size);
    for (int i = 0; i < n_subscribers; i++)
        deliver(subscribers[i], frame, whole);
}

static void shake_hands(int fd, const char *request)
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    char text[96], answer[256];
    const char *key = strcasestr(request, "sec-websocket-key: ");
    if (!key)
        return;
    snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    SHA1((unsigned char *)text, strlen(text), digest);
    EVP_EncodeBlock((unsigned char *)text, digest, sizeof digest);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        text);
    send(fd, answer, (size_t)size, MSG_NOSIGNAL);
}

static void begin(int fd, const char *request)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct client *client = &clients[fd];
    if (strncmp(request, "GET /ws", 7) == 0) {
        client->role = WEBSOCKET;
        shake_hands(fd, request);
    } else if (strncmp(request, "GET /sse", 8) == 0) {
        client->role = EVENT_SOURCE;
        send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    } else {
        client->role = PUBLISHER;
        return;
    }
    client->place = n_subscribers;
    subscribers[n_subscribers++] = fd;
}

static size_t take(int fd, char *data, size_t size)
{
    struct client *client = &clients[fd];
    char *at = data, *next;
    if (client->role == UNKNOWN) {
        char *rest = memmem(data, size, "\r\n\r\n", 4);
        if (!rest)
            return 0;
        rest[2] = 0;
        begin(fd, data);
        at = rest + 4;
    }
    if (client->role != PUBLISHER)
        return size;
    while ((next = memchr(at, '\n', size - (size_t)(at - data)))) {
        publish(at, (size_t)(next - at));
        at = next + 1;
    }
    return (size_t)(at - data);
}

static void receive(int fd)
{
    struct client *client = &clients[fd];
    if (client->n_in)
        memcpy(line, client->in, client->n_in);
    ssize_t size = recv(fd, line + client->n_in, LINE_BYTES, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0 || client->n_in + (size_t)size > LINE_BYTES) {
        end(fd);
        return;
    }
    size_t there = client->n_in + (size_t)size, taken = take(fd, line, there);
    client->n_in = there - taken;
    free(client->in);
    client->in = NULL;
    if (client->n_in) {
        client->in = malloc(client->n_in);
        memcpy(client->in, line + taken, client->n_in);
    }
}

static void accept_all(void)
{
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FILES) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int count, char **arguments)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0) {
        perror("floor");
        return 1;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[512];
        int ready = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all();
            else if (events[i].events & EPOLLOUT)
                send_rest(fd);
            else
                receive(fd);
        }
    }
}
