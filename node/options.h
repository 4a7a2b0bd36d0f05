/* The command line of dkv-node. */
#ifndef DKV_NODE_OPTIONS_H
#define DKV_NODE_OPTIONS_H

#include <stdbool.h>

#include "model/effects.h"

typedef struct dkv_options {
    const char *config; /* path */
    const char *node;   /* which node of the file; NULL: as the file says */
    unsigned members;   /* how many processes to supervise; 0: run one node in this process */
    bool check;         /* only check the configuration file */
    bool insecure;
    bool json;               /* the form of the log */
    dkv_log_level log_level; /* and what matters more */
} dkv_options;

/* Reads the command line. Returns true if the program shall run; else it has printed what was asked
 * for, or what is wrong, and *status is what to exit with. */
bool dkv_options_read(int argc, char **argv, dkv_options *out, int *status);

/* What the program exits with: documented by --help. */
typedef enum dkv_exit {
    DKV_EXIT_OK = 0,
    DKV_EXIT_FAILURE = 1,
    DKV_EXIT_USAGE = 2,
    DKV_EXIT_STORE = 3,
    DKV_EXIT_DISK = 4,
    DKV_EXIT_ADDRESS = 5,
} dkv_exit;

#endif
