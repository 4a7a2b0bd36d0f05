/* What a node does to the world. A node never acts on the world itself: it calls these functions,
 * which the real host (csrc/host) and the simulator (csrc/sim) each implement. */
#ifndef DKV_MODEL_EFFECTS_H
#define DKV_MODEL_EFFECTS_H

#include "model/disk.h"
#include "model/message.h"
#include "model/request.h"

/* A link between two nodes, see model/message.h. Links that a node opens get odd numbers from it,
 * links that it accepts get even numbers, not 0, from the host; no number is used twice. */
typedef uint64_t dkv_link;

typedef enum dkv_log_level {
    DKV_LOG_ERROR,
    DKV_LOG_WARN,
    DKV_LOG_INFO,
    DKV_LOG_DEBUG,
} dkv_log_level;

/* Something that belongs to a notice: a text, or if that is NULL a number. */
typedef struct dkv_notice_field {
    const char *key;
    const char *text;
    uint64_t number;
} dkv_notice_field;

/* What a node tells its operator: one line of the log. */
typedef struct dkv_notice {
    dkv_log_level level;
    const char *event; /* a short name for programs, which stays the same: "peer_down" */
    const char *text;  /* for people: what happened, and what to do if there is anything to do */
    const dkv_notice_field *fields; /* for programs: what the text names */
    size_t n_fields;
} dkv_notice;

/* The functions are called during dkv_node_step and must not call the node; what they are given
 * borrows for the call. All are required. */
typedef struct dkv_effects {
    void *user;
    /* Open `link` to member `peer` of the map; LINK_OPENED or LINK_CLOSED will follow. */
    void (*connect)(void *user, uint16_t peer, dkv_link link);
    /* Close `link`; no event about it follows. */
    void (*close)(void *user, dkv_link link);
    /* Send on `link`; lost without notice if the link breaks or is gone. */
    void (*send)(void *user, dkv_link link, const dkv_message *message);
    void (*reply)(void *user, uint64_t handle, const dkv_reply *reply);
    /* Perform `job` (the store's memory) and give it back with DKV_EVENT_DISK_DONE. */
    void (*disk)(void *user, dkv_disk_job *job);
    void (*log)(void *user, const dkv_notice *notice);
    /* The store can no longer keep its promises: stop the process after logging `text`. */
    void (*fatal)(void *user, int err, const char *text);
} dkv_effects;

/* The moment of a step: its time, and the effects of this step. */
typedef struct dkv_moment {
    int64_t now_ns;   /* monotonic */
    uint64_t wall_ms; /* since 1970; may jump */
    const dkv_effects *effects;
} dkv_moment;

/* How long a node waits for what, in milliseconds; 0 stands for the default. */
typedef struct dkv_timing {
    uint32_t attempt_ms; /* how long one replica may take before a read asks the next: 40 */
    uint32_t connect_ms; /* how long a write waits for another member to know this store: 500 */
    uint32_t ping_ms;    /* silence of a peer that owes an answer before it is pinged: 250 */
    uint32_t silence_ms; /* ... before it is taken for dead: 1500 */
    uint32_t retry_ms;   /* pause before the next connection to a dead peer, growing to 4 ×: 250 */
    uint32_t idle_ms;    /* an unused link is closed after this: 60000 */
    uint32_t round_ms;   /* from one comparison of everything with a peer to the next: 600000 */
} dkv_timing;

/* Tells the operator something that has no fields. */
static inline void dkv_notice_say(const dkv_moment *at, dkv_log_level level, const char *event,
                                  const char *text) {
    at->effects->log(at->effects->user,
                     &(dkv_notice){.level = level, .event = event, .text = text});
}

/* `timing` with its zeros replaced by the defaults. */
dkv_timing dkv_timing_or_default(dkv_timing timing);

static inline int64_t dkv_ns_of_ms(uint64_t ms) {
    return (int64_t)ms * 1000000;
}

#endif
