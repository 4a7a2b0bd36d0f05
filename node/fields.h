/* Reading YAML mappings into structs, with a sentence for each thing that is wrong.
 *
 * A mapping is described by a table of fields: each key, whether it must be there, and the function
 * that reads its value. Every key may stand once; others are errors that name the allowed ones.
 * After an error the rest is read all the same, so that one run tells all that is wrong. */
#ifndef DKV_NODE_FIELDS_H
#define DKV_NODE_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yaml.h>

#define DKV_FIELDS_MAX 16u           /* keys of one mapping */
#define DKV_FIELDS_WHY_MAX 768u      /* bytes of a sentence that says what is wrong */
#define DKV_FIELDS_WRONGS_MAX 20u    /* such sentences; nothing is looked for beyond them */
#define DKV_FIELDS_FILE_MAX 1048576u /* bytes in a file */

/* What is wrong with a file: sentences, each with the file and, if it has one, the line. */
typedef struct dkv_fields_wrongs {
    size_t n;
    char why[DKV_FIELDS_WRONGS_MAX][DKV_FIELDS_WHY_MAX];
} dkv_fields_wrongs;

/* A file being read. */
typedef struct dkv_fields_file {
    const char *path;
    yaml_document_t document;
    dkv_fields_wrongs *wrongs;
    void *user; /* of the functions that read values */
} dkv_fields_file;

typedef struct dkv_field {
    const char *key;
    bool required;
    int (*read)(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to);
    size_t offset; /* of what it sets, in the struct that the mapping describes */
} dkv_field;

/* Reads and parses the file at `path`, and calls `read` with the root of what it says. On an error
 * `wrongs` has at least one sentence: INVALID, or what `read` returns; NO_MEMORY. */
int dkv_fields_load(const char *path, dkv_fields_wrongs *wrongs, void *user,
                    int (*read)(dkv_fields_file *file, const yaml_node_t *root));

/* Reads a mapping whose keys are those of `fields` into the struct `to`, all of it even if some is
 * wrong. `what` names the mapping in messages. */
int dkv_fields_mapping(dkv_fields_file *file, const yaml_node_t *mapping, const char *what,
                       const dkv_field *fields, size_t n_fields, void *to);

/* ---- for the functions that read values ---- */

static inline bool dkv_fields_is_full(const dkv_fields_file *file) {
    return file->wrongs->n == DKV_FIELDS_WRONGS_MAX;
}

/* Tells what is wrong in the line where `at` stands (NULL: in the file). Returns INVALID. */
__attribute__((format(printf, 3, 4))) int dkv_fields_wrong(dkv_fields_file *file,
                                                           const yaml_node_t *at,
                                                           const char *format, ...);

/* Says so, and returns NO_MEMORY. */
int dkv_fields_no_memory(dkv_fields_file *file);

const yaml_node_t *dkv_fields_node(dkv_fields_file *file, int index);

/* The text of a scalar, or NULL after saying that there is none. Borrows from the document. */
const char *dkv_fields_text(dkv_fields_file *file, const char *key, const yaml_node_t *value);

/* How many pairs a mapping has, and the key of the i-th of them: NULL after saying what is wrong
 * with it (no text, or the key of an earlier pair). */
size_t dkv_fields_n_pairs(const yaml_node_t *mapping);
const char *dkv_fields_key(dkv_fields_file *file, const yaml_node_t *mapping, const char *what,
                           size_t i);

/* A whole number from `min` to `max`. */
int dkv_fields_number(dkv_fields_file *file, const char *key, const yaml_node_t *value,
                      uint32_t min, uint32_t max, uint32_t *out);

/* A size such as "64 MiB" or "1048576", from `min` to `max` bytes, which are whole MiB. */
int dkv_fields_size(dkv_fields_file *file, const char *key, const yaml_node_t *value, uint64_t min,
                    uint64_t max, uint64_t *out);

/* A text that is not empty; `to` is a char *, owned by the caller. The form of dkv_field.read. */
int dkv_fields_string(dkv_fields_file *file, const char *key, const yaml_node_t *value, void *to);

#endif
