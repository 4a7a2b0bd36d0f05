#include "fields.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define MIB_SHIFT 20

/* ---- saying what is wrong ---- */

/* `line` counts from 1; 0: of the whole file. */
static void add_wrong(dkv_fields_file *file, size_t line, const char *what) {
    dkv_fields_wrongs *wrongs = file->wrongs;
    if (dkv_fields_is_full(file)) return;
    char *why = wrongs->why[wrongs->n++];
    if (line) {
        snprintf(why, DKV_FIELDS_WHY_MAX, "%.300s:%zu: %s", file->path, line, what);
    } else {
        snprintf(why, DKV_FIELDS_WHY_MAX, "%.300s: %s", file->path, what);
    }
}

int dkv_fields_wrong(dkv_fields_file *file, const yaml_node_t *at, const char *format, ...) {
    char what[DKV_FIELDS_WHY_MAX / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    add_wrong(file, at ? at->start_mark.line + 1 : 0, what);
    return DKV_ERR_INVALID;
}

int dkv_fields_no_memory(dkv_fields_file *file) {
    add_wrong(file, 0, "out of memory");
    return DKV_ERR_NO_MEMORY;
}

static void list_keys(const dkv_field *fields, size_t n, char *to, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < n && at < size; i++) {
        at += (size_t)snprintf(to + at, size - at, "%s%s", i ? ", " : "", fields[i].key);
    }
}

/* ---- values ---- */

const char *dkv_fields_text(dkv_fields_file *file, const char *key, const yaml_node_t *value) {
    const char *text = (const char *)value->data.scalar.value;
    if (value->type != YAML_SCALAR_NODE || strlen(text) != value->data.scalar.length) {
        dkv_fields_wrong(file, value, "%s: a single value is expected", key);
        return NULL;
    }
    return text;
}

int dkv_fields_number(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                      uint32_t min, uint32_t max, uint32_t *out) {
    const char *text = dkv_fields_text(file, key, value);
    if (!text) return DKV_ERR_INVALID;
    size_t digits = strspn(text, "0123456789");
    unsigned long number = strtoul(text, NULL, 10);
    if (digits < 1 || digits > 9 || text[digits] || number < min || number > max) {
        return dkv_fields_wrong(file, value, "%s: \"%.80s\" is not a whole number from %u to %u",
                                key, text, min, max);
    }
    *out = (uint32_t)number;
    return DKV_OK;
}

/* How many bytes a unit has, as a power of two; −1 if there is no such unit. */
static int shift_of(const char *unit) {
    if (!*unit || strcmp(unit, "B") == 0) return 0;
    if (strcmp(unit, "KiB") == 0) return 10;
    if (strcmp(unit, "MiB") == 0) return MIB_SHIFT;
    if (strcmp(unit, "GiB") == 0) return 30;
    return -1;
}

int dkv_fields_size(dkv_fields_file *file, const char *key, const yaml_node_t *value, uint64_t min,
                    uint64_t max, uint64_t *out) {
    const char *text = dkv_fields_text(file, key, value);
    if (!text) return DKV_ERR_INVALID;
    size_t digits = strspn(text, "0123456789");
    const char *unit = text + digits;
    int shift = shift_of(unit + strspn(unit, " "));
    uint64_t size = digits >= 1 && digits <= 12 ? strtoull(text, NULL, 10) : UINT64_MAX;
    if (shift < 0 || size > max >> shift || size << shift < min) {
        return dkv_fields_wrong(
            file, value,
            "%s: \"%.80s\" is not a size from %" PRIu64 " MiB to %" PRIu64
            " MiB (a whole number with B, KiB, MiB or GiB; without a unit: bytes)",
            key, text, min >> MIB_SHIFT, max >> MIB_SHIFT);
    }
    *out = size << shift;
    return DKV_OK;
}

int dkv_fields_string(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to) {
    const char *text = dkv_fields_text(file, key, value);
    if (!text) return DKV_ERR_INVALID;
    if (!text[0]) return dkv_fields_wrong(file, value, "%s: the value is missing", key);
    char *copy = strdup(text);
    if (!copy) return dkv_fields_no_memory(file);
    memcpy(to, &copy, sizeof copy);
    return DKV_OK;
}

/* ---- mappings ---- */

const yaml_node_t *dkv_fields_node(dkv_fields_file *file, int index) {
    return yaml_document_get_node(&file->document, index);
}

size_t dkv_fields_n_pairs(const yaml_node_t *mapping) {
    return (size_t)(mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start);
}

const char *dkv_fields_key(dkv_fields_file *file, const yaml_node_t *mapping, const char *what,
                           size_t i) {
    const yaml_node_pair_t *pairs = mapping->data.mapping.pairs.start;
    const yaml_node_t *node = dkv_fields_node(file, pairs[i].key);
    const char *key = dkv_fields_text(file, what, node);
    for (size_t k = 0; key && k < i; k++) {
        const yaml_node_t *other = dkv_fields_node(file, pairs[k].key);
        if (strcmp((const char *)other->data.scalar.value, key) != 0) continue;
        dkv_fields_wrong(file, node, "%s: the key %.80s stands twice", what, key);
        return NULL;
    }
    return key;
}

static int read_field(dkv_fields_file *file, const yaml_node_t *mapping, const char *what, size_t i,
                      const dkv_field *fields, size_t n_fields, bool *present, void *to) {
    const yaml_node_pair_t *pair = &mapping->data.mapping.pairs.start[i];
    const char *key = dkv_fields_key(file, mapping, what, i);
    if (!key) return DKV_ERR_INVALID;
    for (size_t k = 0; k < n_fields; k++) {
        if (strcmp(fields[k].key, key) != 0) continue;
        present[k] = true;
        return fields[k].read(file, key, dkv_fields_node(file, pair->value),
                              (char *)to + fields[k].offset);
    }
    char allowed[200];
    list_keys(fields, n_fields, allowed, sizeof allowed);
    return dkv_fields_wrong(file, dkv_fields_node(file, pair->key),
                            "%s: unknown key %.80s; allowed are %s", what, key, allowed);
}

int dkv_fields_mapping(dkv_fields_file *file, const yaml_node_t *mapping, const char *what,
                       const dkv_field *fields, size_t n_fields, void *to) {
    bool present[DKV_FIELDS_MAX] = {false};
    if (mapping->type != YAML_MAPPING_NODE) {
        return dkv_fields_wrong(file, mapping, "%s: \"key: value\" pairs are expected", what);
    }
    int err = DKV_OK;
    for (size_t i = 0; i < dkv_fields_n_pairs(mapping) && !dkv_fields_is_full(file); i++) {
        int field_err = read_field(file, mapping, what, i, fields, n_fields, present, to);
        if (field_err == DKV_ERR_NO_MEMORY) return field_err;
        if (field_err) err = field_err;
    }
    for (size_t k = 0; k < n_fields; k++) {
        if (!fields[k].required || present[k]) continue;
        err = dkv_fields_wrong(file, mapping, "%s: the key %s is missing", what, fields[k].key);
    }
    return err;
}

/* ---- the file ---- */

static int parse(dkv_fields_file *file, const uint8_t *text, size_t len,
                 int (*read)(dkv_fields_file *file, const yaml_node_t *root)) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return dkv_fields_no_memory(file);
    yaml_parser_set_input_string(&parser, text, len);
    int err;
    if (!yaml_parser_load(&parser, &file->document)) {
        char what[DKV_FIELDS_WHY_MAX / 2];
        snprintf(what, sizeof what, "not valid YAML: %s",
                 parser.problem ? parser.problem : "out of memory");
        add_wrong(file, parser.problem_mark.line + 1, what);
        err = DKV_ERR_INVALID;
    } else {
        const yaml_node_t *root = yaml_document_get_root_node(&file->document);
        err = root ? read(file, root) : dkv_fields_wrong(file, NULL, "the file is empty");
        yaml_document_delete(&file->document);
    }
    yaml_parser_delete(&parser);
    return err;
}

/* Reads the file's bytes; *text is owned by the caller. */
static int read_file(dkv_fields_file *file, uint8_t **text, size_t *len) {
    FILE *stream = fopen(file->path, "rb");
    if (!stream) return dkv_fields_wrong(file, NULL, "cannot be read: %s", strerror(errno));
    int err = DKV_OK;
    uint8_t *bytes = malloc(DKV_FIELDS_FILE_MAX + 1);
    if (!bytes) {
        err = dkv_fields_no_memory(file);
        goto done;
    }
    *len = fread(bytes, 1, DKV_FIELDS_FILE_MAX + 1, stream);
    if (ferror(stream)) {
        err = dkv_fields_wrong(file, NULL, "cannot be read: %s", strerror(errno));
    } else if (*len > DKV_FIELDS_FILE_MAX) {
        err = dkv_fields_wrong(file, NULL, "larger than %u bytes", DKV_FIELDS_FILE_MAX);
    }
done:
    fclose(stream);
    if (err) {
        free(bytes);
    } else {
        *text = bytes;
    }
    return err;
}

int dkv_fields_load(const char *path, dkv_fields_wrongs *wrongs, void *user,
                    int (*read)(dkv_fields_file *file, const yaml_node_t *root)) {
    dkv_fields_file file = {.path = path, .wrongs = wrongs, .user = user};
    uint8_t *text = NULL;
    size_t len = 0;
    wrongs->n = 0;
    int err = read_file(&file, &text, &len);
    if (!err) err = parse(&file, text, len, read);
    free(text);
    return err;
}
