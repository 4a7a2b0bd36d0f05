#include "base/hash.h"

#define XXH_INLINE_ALL
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

/* Fetching the algorithm and making a context cost several times the hash of a short key, so one
 * algorithm handle serves the process and one context each thread (freed when the thread ends). */
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static pthread_key_t sha256_key;
static EVP_MD *sha256_algorithm;
static _Thread_local EVP_MD_CTX *sha256_context;

static void context_del(void *context) {
    EVP_MD_CTX_free(context);
}

static void sha256_setup(void) {
    sha256_algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256_algorithm || pthread_key_create(&sha256_key, context_del)) abort();
}

static EVP_MD_CTX *sha256_thread_context(void) {
    pthread_once(&sha256_once, sha256_setup);
    sha256_context = EVP_MD_CTX_new();
    if (!sha256_context || pthread_setspecific(sha256_key, sha256_context)) abort();
    return sha256_context;
}

dkv_key_hash dkv_hash_key(dkv_slice bytes) {
    EVP_MD_CTX *context = sha256_context ? sha256_context : sha256_thread_context();
    uint8_t out[32];
    if (!EVP_DigestInit_ex2(context, sha256_algorithm, NULL) ||
        !EVP_DigestUpdate(context, bytes.data, bytes.len) ||
        !EVP_DigestFinal_ex(context, out, NULL)) {
        abort();
    }
    return (dkv_key_hash){dkv_be64(out), dkv_be64(out + 8)};
}

int dkv_key_hash_cmp(dkv_key_hash a, dkv_key_hash b) {
    if (a.token != b.token) return a.token < b.token ? -1 : 1;
    if (a.tag != b.tag) return a.tag < b.tag ? -1 : 1;
    return 0;
}

uint64_t dkv_checksum(dkv_slice bytes, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes.data, bytes.len, seed);
}

dkv_digest dkv_digest_of(dkv_slice bytes, uint64_t key) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data, bytes.len, key);
    return (dkv_digest){hash.low64, hash.high64};
}

void dkv_digest_add(dkv_digest *sum, dkv_digest item) {
    sum->lo += item.lo;
    sum->hi += item.hi + (sum->lo < item.lo);
}

void dkv_digest_sub(dkv_digest *sum, dkv_digest item) {
    uint64_t borrow = sum->lo < item.lo;
    sum->lo -= item.lo;
    sum->hi -= item.hi + borrow;
}

bool dkv_digest_eq(dkv_digest a, dkv_digest b) {
    return a.lo == b.lo && a.hi == b.hi;
}
