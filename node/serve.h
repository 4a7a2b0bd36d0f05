/* Running one node in this process until it is told to stop. */
#ifndef DKV_NODE_SERVE_H
#define DKV_NODE_SERVE_H

#include <signal.h>

#include "config.h"
#include "log.h"

/* Who stops a program often sends the signal twice, to it and to its process group. What comes so
 * soon after the first, in seconds, is not a second signal. */
#define DKV_SERVE_SAME_SIGNAL_S 2

typedef struct dkv_serve_options {
    const dkv_config *config;
    const char *id;   /* which node of the configuration */
    const char *data; /* its directory */
    bool insecure;
    sigset_t signals; /* blocked ones, any of which stops the node */
    bool supervised;  /* a second signal means no more than the first */
    dkv_log *log;
} dkv_serve_options;

/* Blocks the signals that stop the program, before there is a second thread: all inherit it.
 * Returns them. */
sigset_t dkv_serve_block_signals(void);

/* Seconds of a clock that does not jump. */
int64_t dkv_serve_now_s(void);

/* Looks at the data directory and prints what is wrong with it. Returns what a start would exit
 * with for that; makes and changes nothing. *missing: it is not there, and can be made. */
int dkv_serve_look(const dkv_serve_options *options, bool *missing);

/* Runs the node. Returns what the program shall exit with. */
int dkv_serve(const dkv_serve_options *options);

/* The exit status for an error. */
int dkv_serve_status_of(int err);

#endif
