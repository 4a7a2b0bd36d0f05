/* What the parts of an operation cost alone, in one thread, with everything in the CPU's caches as
 * far as it fits: nanoseconds of CPU time each. `make bench-micro`.
 *
 * Each part is repeated for about a fifth of a second, five times; the best of the five counts, as
 * others may use this CPU too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/rand.h"
#include "ring/ring.h"
#include "store/index.h"
#include "wire/wire.h"

#define ROUNDS 5
#define ROUND_NS 200000000
#define KEYS 1000000u
#define VALUE_LEN 1000u
#define BATCH 16u

typedef struct bed {
    dkv_ring *ring;
    dkv_index index;
    dkv_rand rand;
    uint8_t value[VALUE_LEN];
    dkv_buf batch;  /* BATCH requests to put */
    dkv_buf answer; /* BATCH replies to gets */
    uint64_t sum;   /* of all results, so that nothing is left out by the compiler */
} bed;

static int64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void check(int err) {
    if (err) abort();
}

static dkv_key_hash any_hash(bed *b) {
    return (dkv_key_hash){dkv_rand_next(&b->rand), dkv_rand_next(&b->rand)};
}

/* ---- what is measured: each does `n` of it --------------------------------------------------- */

static void hash_keys(bed *b, unsigned n) {
    char key[32];
    for (unsigned i = 0; i < n; i++) {
        int len = snprintf(key, sizeof key, "bench:%08u", i);
        dkv_key_hash hash = dkv_hash_key((dkv_slice){(const uint8_t *)key, (size_t)len});
        b->sum += dkv_ring_replicas(b->ring, hash.token)[0];
    }
}

static void find_replicas(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        b->sum += dkv_ring_replicas(b->ring, dkv_rand_next(&b->rand))[0];
    }
}

static void sum_record(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i++) b->sum += dkv_checksum((dkv_slice){b->value, VALUE_LEN}, i);
}

/* The hashes that fill_index has inserted, again. */
static dkv_key_hash known_hash(uint64_t i) {
    dkv_rand rand = {i};
    uint64_t token = dkv_rand_next(&rand);
    return (dkv_key_hash){token, dkv_rand_next(&rand)};
}

static dkv_index_entry entry_of(dkv_key_hash hash, uint64_t hlc) {
    return (dkv_index_entry){.hash = hash, .version = {hlc, 1}, .place = hlc << 1};
}

static void insert(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        dkv_key_hash hash = any_hash(b);
        dkv_index_entry entry = entry_of(hash, 1);
        check(dkv_index_put(&b->index, &entry));
        b->sum += dkv_index_remove(&b->index, hash);
    }
}

static void replace(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        dkv_index_entry entry = entry_of(known_hash(dkv_rand_below(&b->rand, KEYS)), i + 1);
        check(dkv_index_put(&b->index, &entry));
    }
}

static void look_up(bed *b, unsigned n) {
    dkv_index_entry entry;
    for (unsigned i = 0; i < n; i++) {
        b->sum += dkv_index_get(&b->index, known_hash(dkv_rand_below(&b->rand, KEYS)), &entry);
    }
}

static dkv_request request_of(const bed *b, dkv_op op) {
    dkv_request request = {.op = op, .timeout_ms = 5000, .key = dkv_slice_of("bench:00000000")};
    if (op == DKV_OP_PUT) request.value = (dkv_slice){b->value, VALUE_LEN};
    return request;
}

static void encode_put(bed *b, unsigned n) {
    dkv_request put = request_of(b, DKV_OP_PUT);
    for (unsigned i = 0; i < n; i++) {
        if (i % BATCH == 0) b->batch.len = 0;
        check(dkv_wire_put_request(&b->batch, i, &put));
    }
}

static void encode_reply(bed *b, unsigned n) {
    dkv_reply reply = {.value = {b->value, VALUE_LEN}, .version = {1, 1}};
    for (unsigned i = 0; i < n; i++) {
        if (i % BATCH == 0) b->answer.len = 0;
        check(dkv_wire_put_reply(&b->answer, i, DKV_OP_GET, &reply));
    }
}

static void take_request(void *user, uint64_t id, const dkv_request *request) {
    ((bed *)user)->sum += id + request->value.len;
}

static void decode_put(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i += BATCH) {
        check(dkv_wire_each_request(dkv_buf_slice(&b->batch), take_request, b));
    }
}

static void take_reply(void *user, uint64_t id, const dkv_reply *reply) {
    ((bed *)user)->sum += id + reply->value.len;
}

static void decode_reply(bed *b, unsigned n) {
    for (unsigned i = 0; i < n; i += BATCH) {
        check(dkv_wire_each_reply(dkv_buf_slice(&b->answer), take_reply, b));
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

static double one_round(bed *b, void (*part)(bed *b, unsigned n)) {
    uint64_t n = 0;
    int64_t began_ns = cpu_ns();
    int64_t took_ns;
    do {
        part(b, 64 * BATCH);
        n += 64 * BATCH;
        took_ns = cpu_ns() - began_ns;
    } while (took_ns < ROUND_NS);
    return (double)took_ns / (double)n;
}

static void measure(bed *b, const char *what, void (*part)(bed *b, unsigned n)) {
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double ns = one_round(b, part);
        if (i == 0 || ns < best) best = ns;
    }
    printf("%-64s %8.0f ns\n", what, best);
}

static void make_ring(bed *b) {
    static char *ids[] = {"n1", "n2", "n3"};
    dkv_cluster_map *map;
    check(dkv_cluster_map_new("micro", 3, &map));
    for (int i = 0; i < 3; i++) {
        dkv_member member = {.id = ids[i], .address = "", .zone = "", .weight = 1};
        check(dkv_cluster_map_add(map, &member));
    }
    check(dkv_ring_new(map, &b->ring));
    dkv_cluster_map_del(map);
}

static void fill_index(bed *b) {
    for (uint64_t i = 0; i < KEYS; i++) {
        dkv_index_entry entry = entry_of(known_hash(i), 1);
        check(dkv_index_put(&b->index, &entry));
    }
}

int main(void) {
    bed b = {.rand = {1}};
    make_ring(&b);
    fill_index(&b);
    measure(&b, "SHA-256 of a key of 14 bytes, ring lookup (3 nodes)", hash_keys);
    measure(&b, "ring lookup alone", find_replicas);
    measure(&b, "checksum of 1,000 bytes", sum_record);
    measure(&b, "index of 1,000,000 keys: look up", look_up);
    measure(&b, "index of 1,000,000 keys: replace", replace);
    measure(&b, "index of 1,000,000 keys: insert and remove", insert);
    measure(&b, "encode a put of 1,000 bytes", encode_put);
    measure(&b, "decode a put of 1,000 bytes, 16 in a message", decode_put);
    measure(&b, "encode the reply to a get of 1,000 bytes", encode_reply);
    measure(&b, "decode the reply to a get of 1,000 bytes, 16 in a message", decode_reply);
    dkv_buf_free(&b.batch);
    dkv_buf_free(&b.answer);
    dkv_index_free(&b.index);
    dkv_ring_del(b.ring);
    return b.sum == 0; /* never */
}
