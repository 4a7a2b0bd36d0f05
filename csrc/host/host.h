/* One node in the real world: gRPC, files, clocks, and the thread that owns them.
 *
 * The owner thread is the one that calls dkv_host_run: it polls the completion queue, turns what
 * came into events, steps the node and performs the effects. Syncs and cold reads run on the disk's
 * own threads (host/disk.h). */
#ifndef DKV_HOST_HOST_H
#define DKV_HOST_HOST_H

#include "node/node.h"

typedef struct dkv_host dkv_host;

#define DKV_HOST_REQUESTS_MIN 16u

/* What a node may use at most; 0 stands for the default. Clients whose requests find no room get
 * BUSY, or are read from more slowly. */
typedef struct dkv_host_limits {
    uint32_t requests;          /* of clients, under way: from 16, default and maximum 65,536 */
    uint32_t segment_bytes;     /* of the log's files, see dkv_store_options: 64 MiB */
    uint64_t request_bytes;     /* keys and values of the requests under way: 64 MiB */
    uint64_t received_bytes;    /* come in and not yet handled, over all connections: 512 MiB */
    uint64_t unsynced_bytes;    /* applied, not yet on disk: 64 MiB */
    uint64_t cache_bytes;       /* of values read lately, kept in memory: 16 MiB */
    uint64_t scrub_bytes_per_s; /* read to find damage, see dkv_store_options: 8 MiB */
} dkv_host_limits;

typedef struct dkv_host_options {
    const dkv_cluster_map *map; /* copied */
    const char *id;             /* which member this is */
    const char *listen;         /* "host:port" to bind; NULL = the member's address in the map */
    const char *data_dir;       /* made if missing (mode 0700) */
    bool insecure;              /* listen on other addresses than loopback, too */
    dkv_timing timing;          /* zeros for the defaults */
    dkv_host_limits limits;
    dkv_durability durability; /* when a write counts as confirmed; 0 = ALWAYS */
    uint32_t interval_ms;      /* with DKV_DURABILITY_INTERVAL: between two syncs, at most */
    /* Called from the owner thread. Not NULL. */
    void (*log)(void *user, const dkv_notice *notice);
    void *log_user;
} dkv_host_options;

/* Opens the data directory, recovers the store and listens. When this returns 0 the node's port is
 * bound; it answers as soon as dkv_host_run runs. On an error `why` (DKV_DETAIL_MAX bytes) names
 * the cause and the file or address concerned: LOCKED, PRECONDITION, PROTOCOL, NO_SPACE, IO,
 * UNAVAILABLE (the address cannot be bound), PERMISSION (it is not a loopback address, and
 * `insecure` is not set), NOT_FOUND (no parent directory for the data), INVALID, NO_MEMORY. */
int dkv_host_new(const dkv_host_options *options, dkv_host **out, char *why);

/* Looks at what dkv_host_new would find in the data directory; makes and changes nothing. *missing:
 * it is not there, and can be made. The errors and `why` are those of dkv_host_new, as far as they
 * show without reading the log. */
int dkv_host_look(const dkv_host_options *options, bool *missing, char *why);

/* True if the host part of "host:port" names this machine's loopback interface only. */
bool dkv_address_is_loopback(const char *address);

/* The bound port. */
uint16_t dkv_host_port(const dkv_host *host);

/* Runs the node on this thread until dkv_host_stop; then answers what is under way (for two seconds
 * at most), syncs, and closes cleanly. Returns 0, or the error that made the node stop (IO: the
 * disk failed a sync). Call once. */
int dkv_host_run(dkv_host *host);

/* Asks run to return. Any thread, but not a signal handler: a program blocks its signals and has a
 * thread that waits for them. */
void dkv_host_stop(dkv_host *host);

/* Accepts NULL. Call after run has returned, or instead of it. */
void dkv_host_del(dkv_host *host);

#endif
