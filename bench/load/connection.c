/* A connection of the load client: TCP, TLS if wanted, a request, and then whatever its owner takes from it. */

#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024)
#define KEPT_BYTES (1024 * 1024)
#define SOURCE_ADDRESSES 16
#define LOOK_EACH_NS 50000u

uint64_t received_at_ns;

static int epoll;
static SSL_CTX *context;
static char input[KEPT_BYTES + READ_BYTES];

void begin_connections(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    context = SSL_CTX_new(TLS_client_method());
    if (epoll < 0 || !context)
        die("cannot begin");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                                  | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    if (options.kind == HTTP2)
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2", 3);
}

static void arm(struct connection *self, uint32_t events)
{
    if (events == self->armed)
        return;
    struct epoll_event event = {.events = events, .data.ptr = self};
    if (epoll_ctl(epoll, self->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, self->fd, &event) != 0)
        die("epoll: %s", strerror(errno));
    self->armed = events;
}

/* The addresses alternate, so that ten thousand connections do not use up the ports of one. No connection waits
 * for anything when it is closed. */
static int begin_socket(int port, int receive_bytes)
{
    static unsigned count;
    int yes = 1;
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + count++ % SOURCE_ADDRESSES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("no socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    if (receive_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
        die("cannot bind: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        die("cannot connect: %s", strerror(errno));
    return fd;
}

struct connection *open_connection(int port, bool tls, const char *request, int wanted_status,
                                   size_t (*take)(struct connection *, const char *, size_t),
                                   void (*opened)(struct connection *), int receive_bytes)
{
    struct connection *self = calloc(1, sizeof *self);
    if (!self)
        die("no memory");
    self->fd = begin_socket(port, receive_bytes);
    self->request = request;
    self->wanted_status = wanted_status;
    self->take = take;
    self->opened = opened;
    if (tls) {
        self->ssl = SSL_new(context);
        if (!self->ssl || !SSL_set_fd(self->ssl, self->fd))
            die("no TLS");
        SSL_set_connect_state(self->ssl);
    }
    arm(self, EPOLLOUT);
    return self;
}

void put(struct connection *self, const void *data, size_t size)
{
    if (self->n_out + size > self->room_out) {
        self->room_out = (self->n_out + size) * 2;
        self->out = realloc(self->out, self->room_out);
        if (!self->out)
            die("no memory");
    }
    memcpy(self->out + self->n_out, data, size);
    self->n_out += size;
}

void flush(struct connection *self)
{
    while (self->n_out) {
        ssize_t sent;
        if (self->ssl)
            sent = SSL_write(self->ssl, self->out, (int)self->n_out);
        else
            sent = send(self->fd, self->out, self->n_out, MSG_NOSIGNAL);
        if (sent <= 0) {
            if (self->ssl ? SSL_get_error(self->ssl, (int)sent) != SSL_ERROR_WANT_WRITE : errno != EAGAIN)
                die("cannot send: %s", strerror(errno));
            break;
        }
        self->n_out -= (size_t)sent;
        memmove(self->out, self->out + sent, self->n_out);
    }
    arm(self, self->n_out ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void ignore_input(struct connection *self)
{
    epoll_ctl(epoll, EPOLL_CTL_DEL, self->fd, NULL);
    self->armed = 0;
}

size_t take_all(struct connection *self, const char *data, size_t size)
{
    (void)self, (void)data;
    return size;
}

static void become_open(struct connection *self)
{
    self->state = OPEN;
    if (self->opened)
        self->opened(self);
}

static void ask(struct connection *self)
{
    self->state = ASKED;
    put(self, self->request, strlen(self->request));
    flush(self);
    if (self->wanted_status == 0)
        become_open(self);
}

static void shake_hands(struct connection *self)
{
    int result = SSL_do_handshake(self->ssl);
    if (result == 1) {
        ask(self);
        return;
    }
    int error = SSL_get_error(self->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        die("the TLS handshake failed");
    arm(self, error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
}

static size_t take_head(struct connection *self, const char *data, size_t size)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    int status = size > 12 ? atoi(data + 9) : 0;
    if (status != self->wanted_status)
        die("the server answered %.*s", (int)(end - data), data);
    become_open(self);
    return (size_t)(end + 4 - data);
}

static void keep(struct connection *self, const char *data, size_t size)
{
    if (size > KEPT_BYTES)
        die("too much is incomplete");
    if (size > self->room_kept) {
        self->room_kept = size < 256 ? 256 : size;
        self->kept = realloc(self->kept, self->room_kept);
        if (!self->kept)
            die("no memory");
    }
    if (size)
        memcpy(self->kept, data, size);
    self->n_kept = size;
}

/* Read once; answer whether there may be more. */
static bool receive(struct connection *self)
{
    ssize_t size;
    char *data = input + KEPT_BYTES - self->n_kept;
    if (self->ssl)
        size = SSL_read(self->ssl, input + KEPT_BYTES, READ_BYTES);
    else
        size = recv(self->fd, input + KEPT_BYTES, READ_BYTES, 0);
    if (size <= 0) {
        if (self->ssl ? SSL_get_error(self->ssl, (int)size) == SSL_ERROR_WANT_READ : size < 0 && errno == EAGAIN)
            return false;
        die("the server closed a connection");
    }
    received_at_ns = now_ns();
    if (self->n_kept)
        memcpy(data, self->kept, self->n_kept);
    size_t there = self->n_kept + (size_t)size, taken = 0;
    if (self->state == ASKED)
        taken = take_head(self, data, there);
    if (self->state == OPEN)
        taken += self->take(self, data + taken, there - taken);
    keep(self, data + taken, there - taken);
    return self->ssl != NULL;
}

static void ready(struct connection *self, uint32_t events)
{
    if (!self->armed)
        return;
    if (self->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            die("cannot connect: %s", strerror(error));
        if (self->ssl) {
            self->state = SHAKING_HANDS;
            shake_hands(self);
        } else {
            ask(self);
        }
        return;
    }
    if (self->state == SHAKING_HANDS) {
        shake_hands(self);
        return;
    }
    if (events & EPOLLOUT)
        flush(self);
    if (events & ~EPOLLOUT)
        while (receive(self) && self->armed)
            ;
}

/* A client that sleeps has to be woken, and on one machine that is paid by the server, several microseconds for each
 * delivery, and more by a server that is slower than the client. So it looks again and again instead, but not so often
 * that the kernel's locks are always taken. */
static int wait_awake(struct epoll_event *events, int room, int timeout_ms)
{
    uint64_t until = now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        int count = epoll_wait(epoll, events, room, 0);
        uint64_t now = now_ns(), again = now + LOOK_EACH_NS;
        if (count != 0 || now >= until)
            return count;
        while (now_ns() < again)
            ;
    }
}

void turn(int timeout_ms)
{
    struct epoll_event events[256];
    int count = options.stays_awake ? wait_awake(events, 256, timeout_ms) : epoll_wait(epoll, events, 256, timeout_ms);
    for (int i = 0; i < count; i++)
        ready(events[i].data.ptr, events[i].events);
}
