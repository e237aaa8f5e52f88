/* HTTP/2 as far as a client of event streams needs it (RFC 9113). */

#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 9
#define WINDOW 0x7fffffffu

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { ACK = 1, END_STREAM = 1, END_HEADERS = 4 };

static void put_http2_frame(struct connection *self, int type, int flags, uint32_t stream, const void *payload, size_t size)
{
    unsigned char head[HEAD_BYTES] = {(unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size,
                                      (unsigned char)type, (unsigned char)flags, (unsigned char)(stream >> 24),
                                      (unsigned char)(stream >> 16), (unsigned char)(stream >> 8), (unsigned char)stream};
    put(self, head, sizeof head);
    put(self, payload, size);
}

static void open_window(struct connection *self, uint32_t bytes)
{
    unsigned char increment[4] = {(unsigned char)(bytes >> 24), (unsigned char)(bytes >> 16),
                                  (unsigned char)(bytes >> 8), (unsigned char)bytes};
    put_http2_frame(self, WINDOW_UPDATE, 0, 0, increment, sizeof increment);
}

/* A literal without indexing, its name from the static table (RFC 7541, section 6.2.2), not Huffman coded. */
static size_t put_field(char *to, int name, const char *value)
{
    size_t size = strlen(value);
    size_t head = name < 15 ? 1 : 2;
    if (size > 126)
        die("too long for a request: %s", value);
    to[0] = (char)(name < 15 ? name : 15);
    to[1] = (char)(name - 15);
    to[head] = (char)size;
    memcpy(to + head + 1, value, size);
    return head + 1 + size;
}

void ask_http2(struct connection *self)
{
    static const unsigned char settings[] = {0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff}; /* no push; windows */
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    char block[512] = {(char)0x82, (char)0x87}, authority[64]; /* GET, https */
    size_t size = 2;
    snprintf(authority, sizeof authority, "127.0.0.1:%d", options.port);
    size += put_field(block + size, 4, options.path);
    size += put_field(block + size, 1, authority);
    size += put_field(block + size, 19, "text/event-stream");
    put(self, preface, strlen(preface));
    put_http2_frame(self, SETTINGS, 0, 0, settings, sizeof settings);
    open_window(self, WINDOW - 65535);
    for (int i = 0; i < options.streams; i++)
        put_http2_frame(self, HEADERS, END_STREAM | END_HEADERS, (uint32_t)(2 * i + 1), block, size);
    flush(self);
}

static void take_frame(struct connection *self, int type, int flags, uint32_t stream, const char *payload, size_t size)
{
    if (type == DATA) {
        self->window_used += size;
        if (find_events(self->first + (stream - 1) / 2, payload, size) != size)
            die("an event is in several frames");
        if (flags & END_STREAM)
            die("the server ended stream %u", stream);
    } else if (type == HEADERS) {
        if (!memchr(payload, 0x88, size < 4 ? size : 4)) /* :status 200, perhaps after a change of the table's size */
            die("stream %u was not answered with 200", stream);
        subscriber_opened();
    } else if (type == SETTINGS && !(flags & ACK)) {
        put_http2_frame(self, SETTINGS, ACK, 0, NULL, 0);
    } else if (type == PING && !(flags & ACK)) {
        put_http2_frame(self, PING, ACK, 0, payload, size);
    } else if (type == RST_STREAM || type == GOAWAY) {
        die("the server ended a stream or the connection, frame type %d", type);
    }
}

size_t take_http2(struct connection *self, const char *data, size_t size)
{
    size_t taken = 0;
    while (size - taken >= HEAD_BYTES) {
        const unsigned char *head = (const unsigned char *)data + taken;
        size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        uint32_t stream = (head[5] & 0x7fu) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
        if (size - taken < HEAD_BYTES + length)
            break;
        take_frame(self, head[3], head[4], stream, data + taken + HEAD_BYTES, length);
        taken += HEAD_BYTES + length;
    }
    if (self->window_used > WINDOW / 4) {
        open_window(self, (uint32_t)self->window_used);
        self->window_used = 0;
    }
    if (self->n_out)
        flush(self);
    return taken;
}
