/* The command line of the load client. It prints one line of JSON. */

#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options = {
    .kind = WEBSOCKET, .path = "/", .subscribers = 1000, .streams = 100, .window = 1000, .publish_path = "/",
    .prefix = "", .suffix = "", .payload_bytes = 100, .in_flight = {1}, .levels = 1, .warm_up_s = 0.3, .seconds = 2,
    .publishers = 1, .outstanding = 1, .batch = 1,
};

static const struct option names[] = {
    {"port", required_argument, NULL, 'p'},          {"tls", no_argument, NULL, 't'},
    {"kind", required_argument, NULL, 'k'},          {"path", required_argument, NULL, 'P'},
    {"subscribers", required_argument, NULL, 'n'},   {"streams", required_argument, NULL, 's'},
    {"window", required_argument, NULL, 'w'},        {"stalled", required_argument, NULL, 'S'},
    {"publish-port", required_argument, NULL, 'o'},  {"way", required_argument, NULL, 'y'},
    {"publish-path", required_argument, NULL, 'O'},  {"prefix", required_argument, NULL, 'a'},
    {"suffix", required_argument, NULL, 'z'},        {"payload", required_argument, NULL, 'b'},
    {"in-flight", required_argument, NULL, 'f'},     {"rate", required_argument, NULL, 'r'},
    {"warm-up", required_argument, NULL, 'u'},       {"seconds", required_argument, NULL, 'd'},
    {"settle", required_argument, NULL, 'e'},        {"publishers", required_argument, NULL, 'c'},
    {"outstanding", required_argument, NULL, 'x'},   {"batch", required_argument, NULL, 'B'},
    {"pids", required_argument, NULL, 'i'},          {"stay-awake", no_argument, NULL, 'v'},
    {0},
};

static int one_of(const char *name, const char *const *known)
{
    for (int i = 0; known[i]; i++)
        if (strcmp(name, known[i]) == 0)
            return i;
    die("%s is not known", name);
}

static int numbers(char *text, int *to, int room)
{
    int count = 0;
    for (char *one = strtok(text, ","); one && count < room; one = strtok(NULL, ","))
        to[count++] = atoi(one);
    return count;
}

static void take_option(int letter, char *value)
{
    static const char *const kinds[] = {"websocket", "sse", "http2", NULL}, *const ways[] = {"websocket", "post", "line", NULL};
    switch (letter) {
    case 'p': options.port = atoi(value); break;
    case 't': options.tls = true; break;
    case 'k': options.kind = (enum kind)one_of(value, kinds); break;
    case 'P': options.path = value; break;
    case 'n': options.subscribers = atoi(value); break;
    case 's': options.streams = atoi(value); break;
    case 'w': options.window = atoi(value); break;
    case 'S': options.stalled = atoi(value); break;
    case 'o': options.publish_port = atoi(value); break;
    case 'y': options.way = (enum way)one_of(value, ways); break;
    case 'O': options.publish_path = value; break;
    case 'a': options.prefix = value; break;
    case 'z': options.suffix = value; break;
    case 'b': options.payload_bytes = atoi(value); break;
    case 'f': options.levels = numbers(value, options.in_flight, MAX_LEVELS); break;
    case 'r': options.rate = atof(value); break;
    case 'u': options.warm_up_s = atof(value); break;
    case 'd': options.seconds = atof(value); break;
    case 'e': options.settle_s = atof(value); break;
    case 'c': options.publishers = atoi(value); break;
    case 'x': options.outstanding = atoi(value); break;
    case 'B': options.batch = atoi(value); break;
    case 'i': options.n_pids = numbers(value, options.pids, MAX_PIDS); break;
    case 'v': options.stays_awake = true; break;
    default: die("an option is wrong");
    }
}

static void settle(double seconds)
{
    uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    bool stays_awake = options.stays_awake;
    options.stays_awake = false;
    while (now_ns() < until)
        turn(10);
    options.stays_awake = stays_awake;
}

/* Connect them all, and print what that took and what they take while nothing happens. */
static void connect_all(void)
{
    uint64_t resident = server_resident_bytes();
    struct sample from = sample();
    connect_subscribers();
    struct sample to = sample();
    settle(options.settle_s);
    double more = (double)server_resident_bytes() - (double)resident;
    printf("\"connect\":{\"connections\":%d,\"seconds\":%.6f,\"cpu_us_per_connection\":%.3f,"
           "\"bytes_per_connection\":%.1f,",
           options.subscribers, (double)(to.at_ns - from.at_ns) / 1e9,
           (double)(to.cpu_ns - from.cpu_ns) / 1e3 / options.subscribers, more / options.subscribers);
    print_waiting(from, to);
    putchar('}');
}

static void fan_out_all(void)
{
    uint64_t resident = server_resident_bytes();
    if (options.stalled)
        connect_stalled();
    connect_all();
    connect_publishers();
    printf(",\"levels\":[");
    for (int i = 0; i < options.levels; i++) {
        fan_out(options.in_flight[i], options.warm_up_s, false);
        printf(i ? "," : "");
        fan_out(options.in_flight[i], options.seconds, true);
    }
    printf("],\"peak_bytes\":%.0f", (double)server_peak_bytes() - (double)resident);
}

int main(int count, char **arguments)
{
    int letter;
    while ((letter = getopt_long(count, arguments, "", names, NULL)) != -1)
        take_option(letter, optarg);
    if (optind != count - 1)
        die("wanted: load [options] fanout|connect|publish");
    options.mode = arguments[optind];
    if (!options.publish_port)
        options.publish_port = options.port;
    begin_connections();
    putchar('{');
    if (strcmp(options.mode, "fanout") == 0) {
        fan_out_all();
    } else if (strcmp(options.mode, "connect") == 0) {
        connect_all();
    } else if (strcmp(options.mode, "publish") == 0) {
        connect_publishers();
        measure_publishing();
    } else {
        die("%s is not known", options.mode);
    }
    puts("}");
    return 0;
}
