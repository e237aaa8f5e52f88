/* The load client: it connects subscribers, publishes events to them, and measures the server meanwhile.
 *
 * One thread, one epoll, no library but OpenSSL, so that it is never slower than what it measures. */

#ifndef LOAD_H
#define LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_LEVELS 8
#define MAX_PIDS 32

/* How subscribers listen. */
enum kind { WEBSOCKET, EVENT_SOURCE, HTTP2 };

/* How events are published. A line goes over a connection that was opened with a GET and was never answered. */
enum way { BY_WEBSOCKET, BY_POST, BY_LINE };

struct options {
    const char *mode;                     /* fanout, connect or publish */
    int port;                             /* where subscribers connect, on 127.0.0.1 */
    bool tls;                             /* whether they do with TLS */
    enum kind kind;
    const char *path;                     /* what they ask for */
    int subscribers;
    int streams;                          /* of each HTTP/2 connection; each is a subscriber */
    int window;                           /* how many may be connecting at once */
    int stalled;                          /* connections that subscribe and never read */
    int publish_port;
    enum way way;
    const char *publish_path;
    const char *prefix, *suffix;          /* what is around the data in a published message */
    int payload_bytes;
    int in_flight[MAX_LEVELS], levels;    /* how many events may be on their way, one level after the other */
    double rate;                          /* events a second, whatever is in flight; 0: as soon as may be */
    double warm_up_s, seconds, settle_s;
    int publishers, outstanding;          /* connections, and what each sends before it has an answer */
    int batch;                            /* events in one request */
    bool stays_awake;                     /* whether the client never sleeps */
    int pids[MAX_PIDS], n_pids;           /* the processes of the server */
};

extern struct options options;

/* measure.c */

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);
uint64_t server_resident_bytes(void);
uint64_t server_peak_bytes(void);

/* What processes have used so far, and for how long they were ready but something else had their core. */
struct sample {
    uint64_t at_ns, cpu_ns, server_waited_ns, client_waited_ns;
};

struct sample sample(void);
void print_waiting(struct sample from, struct sample to);

/* A growing set of durations, in microseconds. */
struct durations {
    uint32_t *us;
    size_t count, room;
};

void add_duration(struct durations *durations, uint64_t ns);
void print_durations(const char *name, struct durations *durations);

/* connection.c */

enum state { CONNECTING, SHAKING_HANDS, ASKED, OPEN };

struct connection {
    int fd;
    SSL *ssl;
    enum state state;
    uint32_t armed;                       /* the epoll events that are waited for */
    uint32_t first;                       /* the number of its subscriber, or of the first of them */
    const char *request;                  /* what it says first */
    int wanted_status;                    /* of the answer; 0 if none comes */
    char *kept;                           /* received, but not yet complete */
    size_t n_kept, room_kept;
    char *out;                            /* to be sent */
    size_t n_out, room_out;
    bool is_free;                         /* a publisher that nothing is asked of */
    uint64_t window_used;                 /* HTTP/2: received since the window was opened again */
    void (*message)(struct connection *self, const char *data, size_t size); /* takes one, over WebSocket */
    /* Takes what was received and answers how much of it; the rest comes again, with more behind it. */
    size_t (*take)(struct connection *self, const char *data, size_t size);
    void (*opened)(struct connection *self);
};

void begin_connections(void);
struct connection *open_connection(int port, bool tls, const char *request, int wanted_status,
                                   size_t (*take)(struct connection *, const char *, size_t),
                                   void (*opened)(struct connection *), int receive_bytes);
void put(struct connection *self, const void *data, size_t size);
void flush(struct connection *self);
void ignore_input(struct connection *self);
void turn(int timeout_ms);
size_t take_all(struct connection *self, const char *data, size_t size);
extern uint64_t received_at_ns;           /* when the bytes came that are being taken */

/* websocket.c */

char *websocket_request(int port, const char *path);
void put_message(struct connection *self, const char *prefix, const char *data, size_t size, const char *suffix);
size_t take_websocket(struct connection *self, const char *data, size_t size);

/* subscribers.c */

void connect_subscribers(void);
void connect_stalled(void);
void subscriber_opened(void);
size_t find_events(uint32_t subscriber, const char *data, size_t size);
void fan_out(int in_flight, double seconds, bool is_measured);

/* http2.c */

size_t take_http2(struct connection *self, const char *data, size_t size);
void ask_http2(struct connection *self);

/* publisher.c */

void connect_publishers(void);
bool publish(const char *data, size_t size);
void flush_publishers(void);
void measure_publishing(void);

#endif
