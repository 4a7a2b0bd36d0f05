/* Error codes: one table gives each its number, its name and its sentence.
 *
 * Functions that can fail return `int`: 0 (DKV_OK) or one of the negative codes below. The numbers
 * travel on the wire and are never reused. Two more tables lean on this one, each in one place:
 * the gRPC status of a code (csrc/rpc/status.c) and its Python exception (csrc/py/errors.c). */
#ifndef DKV_BASE_ERR_H
#define DKV_BASE_ERR_H

#define DKV_OK 0

/* X(NAME, number, sentence) */
#define DKV_ERR_MAP(X)                                                       \
    X(NOT_FOUND, -1, "the key does not exist")                               \
    X(INVALID, -2, "an argument is outside its allowed range")               \
    X(UNAVAILABLE, -3, "not enough replicas can be reached")                 \
    X(DEADLINE, -4, "the deadline passed before the outcome was known")      \
    X(BUSY, -5, "a bounded queue is full; try again later")                  \
    X(NO_SPACE, -6, "the disk is full")                                      \
    X(PRECONDITION, -7, "the state of the node or the cluster forbids this") \
    X(UNAUTHENTICATED, -8, "the caller did not prove who it is")             \
    X(PERMISSION, -9, "the caller is not allowed to do this")                \
    X(DATA_LOSS, -10, "stored data is damaged or contradicts itself")        \
    X(NO_MEMORY, -11, "out of memory")                                       \
    X(IO, -12, "the operating system reported an input/output error")        \
    X(CANCELLED, -13, "the operation was cancelled")                         \
    X(CLOCK, -14, "clocks differ by more than the allowed drift")            \
    X(PROTOCOL, -15, "a message or a file does not follow its format")       \
    X(EPOCH, -16, "the cluster maps of the two sides differ")                \
    X(LOCKED, -17, "another process uses the data directory")                \
    X(INTERNAL, -18, "a bug in dkv: please report it")

typedef enum dkv_err {
#define DKV_ERR_ENUM(name, number, sentence) DKV_ERR_##name = (number),
    DKV_ERR_MAP(DKV_ERR_ENUM)
#undef DKV_ERR_ENUM
} dkv_err;

/* The code's name without prefix ("NOT_FOUND"); "OK" for 0, "?" for a number not in the table. */
const char *dkv_err_name(int err);

/* The code's sentence, as in the table above. */
const char *dkv_err_sentence(int err);

#endif
