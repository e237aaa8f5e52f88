/* Publishing: over a WebSocket, by POST on connections that are kept, or in lines to the bare send loop. */

#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_PUBLISHERS 256

static struct connection *publishers[MAX_PUBLISHERS];
static int n_publishers, n_open;
static uint64_t answers, refusals;

static void opened(struct connection *self)
{
    self->is_free = true;
    n_open++;
}

static void answered(struct connection *self, bool is_refusal)
{
    self->is_free = true;
    answers++;
    refusals += is_refusal;
}

/* Find the whole answer at the beginning of `data`; answer its size, or 0 if it is not all there. */
static size_t http_answer(const char *data, size_t size, int *status)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end + 4 - data);
    *status = atoi(data + 9);
    for (const char *line = data; line < end; line = (const char *)memchr(line, '\n', size) + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0) {
            size_t whole = head + strtoull(line + 15, NULL, 10);
            return whole <= size ? whole : 0;
        }
        if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
            const char *last = memmem(end + 2, size - head + 2, "\r\n0\r\n\r\n", 7);
            return last ? (size_t)(last + 7 - data) : 0;
        }
    }
    return head;
}

static size_t take_http_answers(struct connection *self, const char *data, size_t size)
{
    size_t taken = 0, one;
    int status;
    while (taken < size && (one = http_answer(data + taken, size - taken, &status))) {
        bool has_error = memmem(data + taken, one, "\"error\"", 7) != NULL;
        answered(self, status < 200 || status > 299 || has_error);
        taken += one;
    }
    return taken;
}

/* Every message is an answer. */
static void take_message_answer(struct connection *self, const char *data, size_t size)
{
    answered(self, memmem(data, size, "\"error\"", 7) != NULL);
}

static void wait_for_publishers(void)
{
    uint64_t began = now_ns();
    while (n_open < n_publishers) {
        turn(100);
        if (now_ns() - began > 10000000000u)
            die("no way to publish");
    }
}

void connect_publishers(void)
{
    int port = options.publish_port;
    n_publishers = options.publishers;
    if (n_publishers > MAX_PUBLISHERS)
        die("too many publishers");
    for (int i = 0; i < n_publishers; i++) {
        struct connection *one;
        char *request = websocket_request(port, options.publish_path);
        if (options.way == BY_WEBSOCKET)
            one = open_connection(port, false, request, 101, take_websocket, opened, 0);
        else if (options.way == BY_LINE)
            one = open_connection(port, false, request, 0, take_all, opened, 0);
        else
            one = open_connection(port, false, "", 0, take_http_answers, opened, 0);
        one->message = take_message_answer;
        publishers[i] = one;
    }
    wait_for_publishers();
}

static struct connection *free_publisher(void)
{
    for (int i = 0; i < n_publishers; i++)
        if (options.way != BY_POST || publishers[i]->is_free)
            return publishers[i];
    return NULL;
}

static void put_event(struct connection *self, const char *data, size_t size)
{
    char head[512];
    if (options.way == BY_WEBSOCKET) {
        put_message(self, options.prefix, data, size, options.suffix);
    } else if (options.way == BY_LINE) {
        put(self, data, size);
        put(self, "\n", 1);
    } else {
        int length = snprintf(head, sizeof head,
                              "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: text/plain\r\n"
                              "Content-Length: %zu\r\n\r\n",
                              options.publish_path, options.publish_port, size);
        put(self, head, (size_t)length);
        put(self, data, size);
    }
}

/* Publish one event; answer false if every connection waits for an answer. It is sent with the next flush. */
bool publish(const char *data, size_t size)
{
    struct connection *self = free_publisher();
    if (!self)
        return false;
    self->is_free = false;
    put_event(self, data, size);
    return true;
}

void flush_publishers(void)
{
    for (int i = 0; i < n_publishers; i++)
        if (publishers[i]->n_out)
            flush(publishers[i]);
}

static char *message_of_batch(size_t *size)
{
    size_t one = (size_t)options.payload_bytes;
    char *data = malloc(one + 1);
    char *whole = malloc((size_t)options.batch * (one + strlen(options.prefix) + strlen(options.suffix) + 2));
    if (!data || !whole)
        die("no memory");
    memset(data, 'x', one);
    data[one] = 0;
    *size = 0;
    for (int i = 0; i < options.batch; i++) {
        if (options.batch == 1 && options.way == BY_WEBSOCKET)
            *size += (size_t)sprintf(whole + *size, "%s", data);
        else
            *size += (size_t)sprintf(whole + *size, "%s%s%s%s", options.prefix, data, options.suffix,
                                     options.batch > 1 ? "\n" : "");
    }
    free(data);
    return whole;
}

static void keep_publishing(const char *message, size_t size, uint64_t until)
{
    static uint64_t sent;
    uint64_t limit = (uint64_t)options.publishers * (uint64_t)options.outstanding;
    uint64_t heard = now_ns();
    unsigned next = 0;
    while (now_ns() < until || answers < sent) {
        uint64_t before = answers;
        while (now_ns() < until && sent - answers < limit) {
            struct connection *self = options.way == BY_POST ? free_publisher() : publishers[next++ % (unsigned)n_publishers];
            if (!self)
                break;
            self->is_free = false;
            put_event(self, message, size);
            sent++;
        }
        flush_publishers();
        turn(100);
        if (answers != before)
            heard = now_ns();
        else if (now_ns() > heard + 10000000000u)
            die("%llu of %llu were answered", (unsigned long long)answers, (unsigned long long)sent);
    }
}

/* Publish as fast as the server answers, and print the rate. */
void measure_publishing(void)
{
    size_t size;
    char *message = message_of_batch(&size);
    keep_publishing(message, size, now_ns() + (uint64_t)(options.warm_up_s * 1e9));
    uint64_t before = answers;
    struct sample from = sample();
    keep_publishing(message, size, from.at_ns + (uint64_t)(options.seconds * 1e9));
    struct sample to = sample();
    double s = (double)(to.at_ns - from.at_ns) / 1e9, events = (double)(answers - before) * options.batch;
    printf("\"publish\":{\"events\":%.0f,\"events_per_s\":%.1f,\"cpu_us_per_event\":%.4f,\"faults\":%llu,", events,
           events / s, (double)(to.cpu_ns - from.cpu_ns) / 1e3 / events, (unsigned long long)refusals);
    print_waiting(from, to);
    putchar('}');
}
