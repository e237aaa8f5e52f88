/* WebSocket as far as a client needs it (RFC 6455). */

#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

char *websocket_request(int port, const char *path)
{
    char *request;
    if (asprintf(&request,
                 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                 path, port) < 0)
        die("no memory");
    return request;
}

static void put_masked(struct connection *self, int opcode, char *payload, size_t size)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char head[4] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | size)};
    if (size > 65535)
        die("too long a message");
    if (size > 125) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(size >> 8);
        head[3] = (unsigned char)size;
    }
    put(self, head, size > 125 ? 4 : 2);
    put(self, mask, sizeof mask);
    for (size_t i = 0; i < size; i++)
        payload[i] ^= (char)mask[i & 3];
    put(self, payload, size);
}

void put_message(struct connection *self, const char *prefix, const char *data, size_t size, const char *suffix)
{
    static char payload[65536];
    size_t before = strlen(prefix), after = strlen(suffix);
    if (before + size + after > sizeof payload)
        die("too long a message");
    memcpy(payload, prefix, before);
    memcpy(payload + before, data, size);
    memcpy(payload + before + size, suffix, after);
    put_masked(self, TEXT, payload, before + size + after);
}

static void take_frame(struct connection *self, int opcode, const char *payload, size_t size)
{
    char copy[126];
    if (opcode < CLOSE) {
        self->message(self, payload, size);
    } else if (opcode == PING) {
        memcpy(copy, payload, size);
        put_masked(self, PONG, copy, size);
        flush(self);
    } else if (opcode == CLOSE) {
        die("the server closed a WebSocket: %.*s", size > 2 ? (int)size - 2 : 0, size > 2 ? payload + 2 : "");
    }
}

size_t take_websocket(struct connection *self, const char *data, size_t size)
{
    size_t taken = 0;
    while (size - taken >= 2) {
        const unsigned char *head = (const unsigned char *)data + taken;
        size_t length = head[1], before = 2;
        if (length == 126 && size - taken >= 4) {
            length = (size_t)head[2] << 8 | head[3];
            before = 4;
        } else if (length > 125) {
            if (length > 126)
                die("a frame that is too long, or masked");
            break;
        }
        if (size - taken < before + length)
            break;
        take_frame(self, head[0] & 15, data + taken + before, length);
        taken += before + length;
    }
    return taken;
}
