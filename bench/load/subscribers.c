/* The subscribers, and the events on their way to them.
 *
 * The data of every event begins with its number, as "#~00000017:". Each subscriber must get each number once. An
 * event is in flight until all subscribers have it; whenever one is not any more, the next is published. */

#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK_BYTES 11
#define PATIENCE_NS 30000000000u

struct event {
    uint64_t published_ns;
    uint32_t arrived;                     /* how many subscribers have it */
};

struct owed {
    uint64_t ahead;                       /* which of the following 64 have arrived, too early */
    uint32_t next;                        /* the first number that has not */
};

static uint32_t n_open, n_stalled;
static struct owed *owed;                 /* to each subscriber */
static struct event *events;
static uint32_t published, completed, room;
static uint64_t deliveries, faults;
static bool measuring;
static struct durations each, last;       /* from the publication to a subscriber, and to the last of them */

void subscriber_opened(void)
{
    n_open++;
}

/* Take a number off what a subscriber is owed. What is published over one connection has to come in order; by POST it is
 * published over several, and has none. */
static bool is_owed(struct owed *owed, uint32_t number)
{
    uint32_t ahead = number - owed->next;
    if (ahead >= 64 || owed->ahead >> ahead & 1 || (ahead && options.way != BY_POST))
        return false;
    owed->ahead |= (uint64_t)1 << ahead;
    for (; owed->ahead & 1; owed->ahead >>= 1)
        owed->next++;
    return true;
}

static void event_arrived(uint32_t subscriber, uint32_t number)
{
    if (number >= published)
        die("an event that was never published: %u", number);
    struct event *event = &events[number];
    faults += !is_owed(&owed[subscriber], number);
    deliveries++;
    event->arrived++;
    uint64_t after = received_at_ns - event->published_ns;
    if (measuring)
        add_duration(&each, after);
    if (event->arrived == (uint32_t)options.subscribers) {
        completed++;
        if (measuring)
            add_duration(&last, after);
    }
}

size_t find_events(uint32_t subscriber, const char *data, size_t size)
{
    const char *at = data, *end = data + size;
    while ((at = memchr(at, '#', (size_t)(end - at)))) {
        if (end - at < MARK_BYTES)
            return (size_t)(at - data);
        if (at[1] != '~' || at[MARK_BYTES - 1] != ':') {
            at++;
            continue;
        }
        uint32_t number = 0;
        for (int i = 2; i < MARK_BYTES - 1; i++)
            number = number * 10 + (uint32_t)(at[i] - '0');
        event_arrived(subscriber, number);
        at += MARK_BYTES;
    }
    return size;
}

static size_t take_stream(struct connection *self, const char *data, size_t size)
{
    return find_events(self->first, data, size);
}

static void take_message(struct connection *self, const char *data, size_t size)
{
    if (find_events(self->first, data, size) != size)
        die("half an event in a message");
}

static void opened(struct connection *self)
{
    (void)self;
    subscriber_opened();
}

static void stalled_opened(struct connection *self)
{
    ignore_input(self);
    n_stalled++;
}

static char *subscription_request(void)
{
    if (options.kind == WEBSOCKET)
        return websocket_request(options.port, options.path);
    char *request;
    if (asprintf(&request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", options.path,
                 options.port) < 0)
        die("no memory");
    return request;
}

static void wait_until(uint32_t *count, uint32_t wanted_count)
{
    uint64_t began = now_ns();
    while (*count < wanted_count) {
        turn(100);
        if (now_ns() - began > 4 * PATIENCE_NS)
            die("only %u of %u connections were answered", *count, wanted_count);
    }
}

void connect_subscribers(void)
{
    uint32_t count = (uint32_t)options.subscribers, window = (uint32_t)options.window;
    char *request = subscription_request();
    owed = calloc(count, sizeof *owed);
    if (!owed)
        die("no memory");
    for (uint32_t i = 0; i < count;) {
        if (i - n_open >= window)
            wait_until(&n_open, i - window + 1);
        struct connection *one;
        if (options.kind == HTTP2) {
            one = open_connection(options.port, options.tls, "", 0, take_http2, ask_http2, 0);
            one->first = i;
            i += (uint32_t)options.streams;
            continue;
        }
        if (options.kind == WEBSOCKET)
            one = open_connection(options.port, options.tls, request, 101, take_websocket, opened, 0);
        else
            one = open_connection(options.port, options.tls, request, 200, take_stream, opened, 0);
        one->message = take_message;
        one->first = i++;
    }
    wait_until(&n_open, count);
}

void connect_stalled(void)
{
    char *request = subscription_request();
    int status = options.kind == WEBSOCKET ? 101 : 200;
    for (uint32_t i = 0; i < (uint32_t)options.stalled; i++) {
        if (i - n_stalled >= (uint32_t)options.window)
            wait_until(&n_stalled, i - (uint32_t)options.window + 1);
        open_connection(options.port, options.tls, request, status, take_all, stalled_opened, 4096);
    }
    wait_until(&n_stalled, (uint32_t)options.stalled);
}

static bool publish_one(void)
{
    static char *data;
    size_t size = (size_t)options.payload_bytes;
    if (!data) {
        data = malloc(size + 1);
        if (!data || size < MARK_BYTES)
            die("the payload must have at least %d bytes", MARK_BYTES);
        memset(data, 'x', size);
    }
    if (published == room) {
        room = room ? room * 2 : 4096;
        events = realloc(events, room * sizeof *events);
        if (!events)
            die("no memory");
    }
    char mark[MARK_BYTES + 1];
    snprintf(mark, sizeof mark, "#~%08u:", published % 100000000);
    memcpy(data, mark, MARK_BYTES);
    events[published] = (struct event){.published_ns = now_ns()};
    if (!publish(data, size))
        return false;
    published++;
    return true;
}

static void print_fan_out(int in_flight, uint32_t n_events, uint64_t n_deliveries, struct sample from, struct sample to)
{
    double ns = (double)(to.at_ns - from.at_ns), n = (double)n_deliveries;
    printf("{\"in_flight\":%d,\"events\":%u,\"deliveries\":%.0f,\"seconds\":%.6f,\"faults\":%llu,"
           "\"cpu_us_per_delivery\":%.4f,\"deliveries_per_s\":%.1f,",
           in_flight, n_events, n, ns / 1e9, (unsigned long long)faults, (double)(to.cpu_ns - from.cpu_ns) / 1e3 / n,
           n * 1e9 / ns);
    print_waiting(from, to);
    putchar(',');
    print_durations("latency_us", &each);
    putchar(',');
    print_durations("last_us", &last);
    putchar('}');
}

/* Publish for some time, and wait until everything has arrived. */
void fan_out(int in_flight, double seconds, bool is_measured)
{
    struct sample from = sample();
    uint64_t length = (uint64_t)(seconds * 1e9), began = from.at_ns, heard = began, period = 0, before = deliveries;
    uint32_t first = published;
    if (options.rate > 0)
        period = (uint64_t)(1e9 / options.rate);
    each.count = last.count = 0;
    measuring = is_measured;
    for (;;) {
        uint64_t now = now_ns(), seen = deliveries;
        bool is_over = now - began >= length;
        int timeout_ms = 100;
        if (is_over && completed == published)
            break;
        if (!is_over && period) {
            uint64_t due = began + (published - first) * period;
            if (now >= due)
                publish_one();
            timeout_ms = now >= due ? 0 : (int)((due - now) / 1000000);
        } else if (!is_over) {
            while (published - completed < (uint32_t)in_flight && publish_one())
                ;
        }
        flush_publishers();
        turn(timeout_ms);
        if (deliveries != seen)
            heard = received_at_ns;
        else if (now_ns() > heard + PATIENCE_NS)
            die("event %u has come to %u of %d subscribers", completed, events[completed].arrived,
                options.subscribers);
    }
    if (is_measured)
        print_fan_out(in_flight, published - first, deliveries - before, from, sample());
    measuring = false;
}
