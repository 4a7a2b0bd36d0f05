/* Several nodes on one machine: `dkv-node --members K`.
 *
 * A node is one thread's work, so a machine with many cores runs several. Each is a process of its
 * own, forked before gRPC has been touched, with the address that the configuration gives it, a
 * directory below `data` named by its id, and its id in each line of the log. Together they are the
 * nodes of the configuration that have one `host`: so no two of them hold copies of the same key
 * while there are other hosts.
 *
 * 1. A member that ends with status 0 was stopped by somebody, and stays so.
 * 2. Status 2, wrong options or configuration, is the same for all and for ever: all are stopped.
 * 3. A member that ends otherwise is started again after 1 s, the next time after 2, up to 30; when
 *    it has run for a minute, after 1 s again.
 * 4. SIGTERM, SIGINT and SIGHUP stop all members in order; a second signal kills them.
 * 5. When the supervisor dies, the kernel tells its members to stop. */
#ifndef DKV_NODE_SUPERVISE_H
#define DKV_NODE_SUPERVISE_H

#include <signal.h>

#include "config.h"
#include "options.h"

/* Checks that the configuration has as many nodes on this host as are wanted, and prints what is
 * wrong if not. */
bool dkv_supervise_check(const dkv_config *config, const dkv_options *options);

/* As dkv_serve_look, for `data` and the directory of each member in it. */
int dkv_supervise_look(const dkv_config *config, const dkv_options *options, bool *missing);

/* Runs the members until they are stopped. Returns the greatest of their exit statuses.
 * `signals` are what dkv_serve_block_signals has blocked. */
int dkv_supervise(const dkv_config *config, const dkv_options *options, sigset_t signals);

#endif
