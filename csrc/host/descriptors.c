/* The set is small and seldom asked for, so it is not indexed: a name is looked for by walking
 * through the bytes. */
#include "host/descriptors.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "wire/frame.h"

static const uint8_t set_bytes[] = {
#include "descriptors.inc"
};

/* ---- bytes ---- */

/* What is described. */
typedef enum kind { NOTHING, FILE_, MESSAGE, ENUM, SERVICE, METHOD } kind;

/* The numbers of google/protobuf/descriptor.proto. */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_IMPORT = 3,
    FILE_SERVICE = 6,
    NAME = 1, /* of everything but a file */
};

/* The fields with what is declared inside something else. */
static const struct {
    kind whole;
    unsigned field;
    kind part;
} declarations[] = {
    {FILE_, 4, MESSAGE},   {FILE_, 5, ENUM},   {FILE_, FILE_SERVICE, SERVICE},
    {MESSAGE, 3, MESSAGE}, {MESSAGE, 4, ENUM}, {SERVICE, 2, METHOD},
};

static kind declared_in(kind whole, unsigned field) {
    for (size_t i = 0; i < sizeof declarations / sizeof *declarations; i++) {
        if (declarations[i].whole == whole && declarations[i].field == field) {
            return declarations[i].part;
        }
    }
    return NOTHING;
}

/* Cuts off the next field that holds a string or a message. */
static bool next_field(dkv_slice *rest, unsigned *number, dkv_slice *content) {
    uint64_t key;
    while (rest->len && dkv_wire_take_field(rest, &key, content) == 0) {
        *number = (unsigned)(key >> 3);
        if ((key & 7) == DKV_WIRE_BYTES) return true;
    }
    return false;
}

/* The first field `wanted`, or nothing. */
static dkv_slice field_of(dkv_slice bytes, unsigned wanted) {
    unsigned number;
    dkv_slice content;
    while (next_field(&bytes, &number, &content)) {
        if (number == wanted) return content;
    }
    return (dkv_slice){0};
}

/* Whether `bytes`, a description of a `what`, is that of `symbol` or has it inside. The symbol is
 * named from where `what` is declared. */
static bool declares(kind what, dkv_slice bytes, dkv_slice symbol) {
    dkv_slice name = field_of(bytes, what == FILE_ ? FILE_PACKAGE : NAME);
    if (symbol.len < name.len || memcmp(symbol.data, name.data, name.len) != 0) return false;
    if (symbol.len == name.len) return what != FILE_;
    if (symbol.data[name.len] != '.') return false;
    dkv_slice inside = {symbol.data + name.len + 1, symbol.len - name.len - 1};
    unsigned number;
    dkv_slice content;
    while (next_field(&bytes, &number, &content)) {
        kind part = declared_in(what, number);
        if (part != NOTHING && declares(part, content, inside)) return true;
    }
    return false;
}

/* ---- files ---- */

static void read_all(dkv_descriptors *out) {
    dkv_slice rest = {set_bytes, sizeof set_bytes};
    unsigned number;
    dkv_slice content;
    out->n = 0;
    while (next_field(&rest, &number, &content)) {
        assert(number == SET_FILE && out->n < DKV_DESCRIPTORS_MAX);
        out->files[out->n++] = content;
    }
}

static size_t find_name(const dkv_descriptors *all, dkv_slice name) {
    size_t at = 0;
    while (at < all->n && !dkv_slice_eq(field_of(all->files[at], FILE_NAME), name)) at++;
    return at;
}

/* File `at` and all that it imports, directly or not. Those stand before it in the set. */
static void take_with_imports(const dkv_descriptors *all, size_t at, dkv_descriptors *out) {
    bool wanted[DKV_DESCRIPTORS_MAX + 1] = {false}; /* the last one: files that are not there */
    wanted[at] = true;
    out->n = 0;
    for (size_t i = all->n; i-- > 0;) {
        if (!wanted[i]) continue;
        out->files[out->n++] = all->files[i];
        dkv_slice rest = all->files[i];
        unsigned number;
        dkv_slice content;
        while (next_field(&rest, &number, &content)) {
            if (number == FILE_IMPORT) wanted[find_name(all, content)] = true;
        }
    }
}

void dkv_descriptors_by_name(dkv_slice name, dkv_descriptors *out) {
    dkv_descriptors all;
    read_all(&all);
    take_with_imports(&all, find_name(&all, name), out);
}

void dkv_descriptors_by_symbol(dkv_slice symbol, dkv_descriptors *out) {
    dkv_descriptors all;
    read_all(&all);
    size_t at = 0;
    while (at < all.n && !declares(FILE_, all.files[at], symbol)) at++;
    take_with_imports(&all, at, out);
}

/* ---- services ---- */

static void join(dkv_slice package, dkv_slice name, dkv_service_name *out) {
    int len = snprintf(out->text, sizeof out->text, "%.*s.%.*s", (int)package.len,
                       (const char *)package.data, (int)name.len, (const char *)name.data);
    assert(len > 0 && (size_t)len < sizeof out->text);
    (void)len;
}

size_t dkv_descriptors_services(dkv_service_name names[DKV_SERVICES_MAX]) {
    dkv_descriptors all;
    read_all(&all);
    size_t n = 0;
    for (size_t i = 0; i < all.n; i++) {
        dkv_slice package = field_of(all.files[i], FILE_PACKAGE);
        dkv_slice rest = all.files[i];
        unsigned number;
        dkv_slice content;
        while (next_field(&rest, &number, &content)) {
            if (number != FILE_SERVICE) continue;
            assert(n < DKV_SERVICES_MAX);
            join(package, field_of(content, NAME), &names[n++]);
        }
    }
    return n;
}
