/* A get at the levels QUORUM and ALL. All replicas are asked, one of them for the value as well and
 * the others for their versions only. When as many as the level asks for have answered, the newest
 * record is the answer, but not before as many replicas hold it durably: the others get it first,
 * and so do those that have it but whose disk has not.
 * So once a read has returned a value, also one whose writer was told "unknown", no later read at
 * these levels returns an older one (the write-back of Attiya, Bar-Noy, Dolev, "Sharing memory
 * robustly in message-passing systems", JACM 1995, section 3). */
#include <stdio.h>

#include "base/err.h"
#include "replica/internal.h"

/* Has the value sent by the replica that named the newest record, or by another one that has it. */
static void fetch_value(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned answered = ANSWERED | DKV_SET(NOT_IN_SYNC), i = q->source;
    if (!(DKV_SET(q->r.progress[i]) & answered)) {
        for (i = 0; i < q->r.n && q->r.progress[i] != HAS; i++) continue;
    }
    if (i < q->r.n) {
        dkv_read_ask(replica, at, q, i, true);
        q->source = (uint8_t)i;
    }
    if (i == q->r.n || q->r.progress[i] != ASKED) {
        dkv_read_fail(replica, at, q, DKV_ERR_UNAVAILABLE,
                      "the replica with the newest value can no longer be asked for it");
    }
}

static void mend_one(dkv_replica *replica, const dkv_moment *at, read_request *q, unsigned i,
                     const dkv_message *apply) {
    q->r.progress[i] = FAILED;
    q->mended |= (uint8_t)(1u << i);
    if (dkv_replica_is_mine(&q->r, i)) {
        if (dkv_store_apply(replica->options.store, &apply->apply, q->r.task.id)) return;
    } else if (!dkv_peers_send(replica->options.peers, at, q->r.list[i], apply)) {
        return;
    }
    q->mends_out[i]++;
    q->r.progress[i] = MENDING;
}

/* Sends the newest record to all that have answered without it. */
static void mend(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned lacking = DKV_SET(HAS_LESS) | DKV_SET(HAS_NONE) | DKV_SET(NOT_IN_SYNC);
    dkv_message apply = {.kind = DKV_MSG_APPLY, .id = q->r.task.id};
    apply.apply = (dkv_record){q->r.key, dkv_buf_slice(&q->value), q->version, q->kind};
    for (unsigned i = 0; i < q->r.n; i++) {
        if (DKV_SET(q->r.progress[i]) & lacking) mend_one(replica, at, q, i, &apply);
    }
}

/* Enough replicas have answered, and the newest record is known. */
static void bring_up_to_date(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    if (dkv_replica_count(&q->r, DKV_SET(HAS)) < q->r.needs) mend(replica, at, q);
    unsigned has = dkv_replica_count(&q->r, DKV_SET(HAS));
    unsigned hoped = dkv_replica_count(&q->r, DKV_SET(MENDING) | PENDING);
    if (has >= q->r.needs) {
        dkv_read_conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
    } else if (has + hoped < q->r.needs) {
        dkv_read_fail(replica, at, q, DKV_ERR_UNAVAILABLE,
                      "too few replicas could be given the newest value, which some lack");
    }
}

void dkv_read_proceed_many(dkv_replica *replica, const dkv_moment *at, read_request *q) {
    unsigned answers = dkv_replica_count(&q->r, ANSWERED);
    unsigned pending = dkv_replica_count(&q->r, PENDING);
    q->enough |= answers >= q->r.needs;
    if (!q->enough) {
        char why[96];
        if (answers + pending >= q->r.needs) return;
        snprintf(why, sizeof why, "the read needs answers of %u of %u replicas, %u can give one",
                 q->r.needs, q->r.n, answers + pending);
        dkv_read_fail(replica, at, q, DKV_ERR_UNAVAILABLE, why);
    } else if (!q->found) {
        dkv_read_conclude(replica, at, q, DKV_ERR_UNAVAILABLE);
    } else if (q->has_value) {
        bring_up_to_date(replica, at, q);
    } else if (q->r.progress[q->source] != ASKED) {
        fetch_value(replica, at, q);
    }
}
