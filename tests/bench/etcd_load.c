/* Load for etcd: its v3 API over the same gRPC library that dkv uses, one unary call for each
 * operation, DEPTH of them under way on each connection. All go to the first server, which should
 * be the leader.
 *
 *   etcd               reads are linearizable: the leader asks the others whether it still leads
 *   etcd-serializable  reads are answered by the server alone
 *
 * Of the protocol (rpc.proto, kv.proto of etcd) this is used, by field numbers:
 *   PutRequest      1 key, 2 value
 *   RangeRequest    1 key, 7 serializable
 *   RangeResponse   2 kvs (KeyValue)
 *   KeyValue        5 value */
#include <unistd.h>

#include "load.h"
#include "rpc/rpc.h"

#define LENGTH_DELIMITED 2u
#define TIMEOUT_MS 20000u

typedef struct call {
    dkv_rpc_channel *channel;
    uint64_t index;
    int64_t begun_ns;
    bool resting;
} call;

static load the_load;
static dkv_buf scratch;

/* ---- protobuf ------------------------------------------------------------------------------- */

static void put_varint(dkv_buf *out, uint64_t number) {
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)(number & 0x7f) | (number > 0x7f ? 0x80 : 0);
        number >>= 7;
    } while (number);
    if (dkv_buf_append(out, (dkv_slice){bytes, n})) load_fail("etcd", "no memory");
}

static void put_bytes(dkv_buf *out, unsigned field, dkv_slice bytes) {
    put_varint(out, field << 3 | LENGTH_DELIMITED);
    put_varint(out, bytes.len);
    if (dkv_buf_append(out, bytes)) load_fail("etcd", "no memory");
}

static bool get_varint(dkv_slice *in, uint64_t *number) {
    *number = 0;
    for (unsigned shift = 0; in->len > 0 && shift < 64; shift += 7) {
        uint8_t byte = *in->data++;
        in->len--;
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* Finds the first field `wanted`, of bytes, in a message of varints and bytes. */
static bool find_bytes(dkv_slice in, unsigned wanted, dkv_slice *out) {
    uint64_t tag, number;
    while (get_varint(&in, &tag) && get_varint(&in, &number)) {
        if ((tag & 7) != LENGTH_DELIMITED) continue;
        if (number > in.len) return false;
        *out = (dkv_slice){in.data, number};
        if (tag >> 3 == wanted) return true;
        in.data += number;
        in.len -= number;
    }
    return false;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void start(call *c);

static void on_done(void *user, int err, const char *detail, dkv_slice bytes) {
    call *c = user;
    if (err) load_fail("etcd", detail);
    dkv_slice pair = {0}, value = {0};
    if (the_load.kind == LOAD_GET) {
        if (!find_bytes(bytes, 2, &pair) || !find_bytes(pair, 5, &value)) {
            load_fail("etcd", "a key is missing");
        }
        load_check(&the_load, c->index, value);
    }
    load_ended(&the_load, c->begun_ns);
    start(c);
}

static void start(call *c) {
    c->resting = !load_next(&the_load, &c->index);
    if (c->resting) return;
    uint8_t key[DKV_BENCH_KEY_LEN];
    bool is_get = the_load.kind == LOAD_GET;
    dkv_bench_key(c->index, key);
    scratch.len = 0;
    put_bytes(&scratch, 1, (dkv_slice){key, sizeof key});
    if (!is_get) put_bytes(&scratch, 2, load_value(&the_load, c->index));
    if (is_get && strcmp(the_load.protocol, "etcd-serializable") == 0) {
        put_varint(&scratch, 7 << 3);
        put_varint(&scratch, 1);
    }
    c->begun_ns = load_now();
    const char *method = is_get ? "/etcdserverpb.KV/Range" : "/etcdserverpb.KV/Put";
    if (dkv_rpc_unary(c->channel, method, dkv_buf_slice(&scratch), TIMEOUT_MS, on_done, c)) {
        load_fail("etcd", "a call could not be started");
    }
}

int main(int argc, char **argv) {
    dkv_rpc_loop *loop;
    load_parse(&the_load, argc, argv);
    size_t n = (size_t)the_load.connections * the_load.depth;
    call *calls = calloc(n, sizeof *calls);
    if (!calls || dkv_rpc_loop_new(&loop)) load_fail(argv[0], "no memory");
    dkv_rpc_channel *channel = NULL;
    for (size_t i = 0; i < n; i++) {
        if (i % the_load.depth == 0 && dkv_rpc_channel_new(loop, the_load.servers[0], &channel)) {
            load_fail(argv[0], "no memory");
        }
        calls[i].channel = channel;
        start(&calls[i]);
    }
    while (the_load.phase != LOAD_OVER) {
        dkv_rpc_loop_poll(loop, load_now() + 100000000, 256);
        load_tick(&the_load);
    }
    fflush(stdout);
    _exit(0); /* what is under way need not end */
}
