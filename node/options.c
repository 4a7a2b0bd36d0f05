#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dkv_version.h"
#include "ring/cluster_map.h"

static const char usage[] =
    "Usage: dkv-node --config FILE [--node ID | --members K] [--check]\n"
    "                [--insecure] [--log-level LEVEL] "
    "[--log-format FORMAT]\n";

static const char help[] =
    "\n"
    "Runs one node of a dkv cluster, or several, until SIGTERM or Ctrl-C.\n"
    "\n"
    "  --config FILE        the configuration, see below\n"
    "  --node ID            which of the nodes in the file this is, instead of its `node`\n"
    "  --members K          start all K nodes of the file that have the same `host` as `node`, "
    "each\n"
    "                       in a process of its own, and start them again if they crash: this is\n"
    "                       how a machine with many cores is used\n"
    "  --check              check the configuration and look at the data directory, print what\n"
    "                       they say, and exit as a start would; makes and changes nothing\n"
    "  --insecure           listen on other addresses than loopback, too: connections are neither\n"
    "                       encrypted nor authenticated, so whoever can connect can read and\n"
    "                       write everything\n"
    "  --log-level LEVEL    error, warn, info (default) or debug\n"
    "  --log-format FORMAT  text (default), or json: one object a line\n"
    "  --version, --help    print that and exit\n"
    "\n"
    "The configuration is YAML and the same on all machines, but for `node` and `data`:\n"
    "\n"
    "  cluster: demo              # its name\n"
    "  replication: 3             # N: on how many nodes each key is kept, 1 to 5\n"
    "  node: n1                   # which of the nodes below this is\n"
    "  data: /var/lib/dkv/n1      # directory, made if its parent exists; relative to the file.\n"
    "                             # With --members: one in it for each node, named by its id\n"
    "  nodes:                     # all of them, 1 to 1000; host, zone, weight (1 to 16) optional\n"
    "    n1: {address: \"10.0.0.1:7001\", host: m1, zone: z1, weight: 1}\n"
    "    n2: {address: \"10.0.0.2:7001\"}\n"
    "    n3: {address: \"10.0.0.3:7001\"}\n"
    "\n"
    "and, optional, with the default values:\n"
    "\n"
    "  listen: 10.0.0.1:7001      # if it is not the node's address\n"
    "  durability: always         # a write is confirmed when it is on disk; or memory; or\n"
    "                             # {interval: 100}: at the latest so many ms later\n"
    "  limits:                    # of each node; more is BUSY\n"
    "    requests: 65536          # of clients, under way; 16 to 65536\n"
    "    request_memory: 64 MiB   # their keys and values; 8 MiB to 16 GiB\n"
    "    receive_memory: 512 MiB  # come in, not yet looked at; 32 MiB to 64 GiB\n"
    "    write_memory: 64 MiB     # not yet on disk; 8 MiB to 1 GiB\n"
    "    cache_memory: 16 MiB     # values read lately; 1 MiB to 64 GiB\n"
    "    segment: 64 MiB          # size of a file of the log; 4 MiB to 1 GiB\n"
    "    scrub: 8 MiB             # read each second to find damage; 1 MiB to 1 GiB\n"
    "  timing: {attempt_ms: 40, connect_ms: 500, ping_ms: 250, silence_ms: 1500, retry_ms: 250,\n"
    "           idle_ms: 60000}   # milliseconds\n"
    "\n"
    "SIGTERM, SIGINT and SIGHUP stop a node in order: requests under way are answered and all is\n"
    "on disk. A second one, some seconds later, ends it at once: what was confirmed is not lost\n"
    "(with durability always), but the next start takes longer. The log goes to standard error.\n"
    "\n"
    "Exit status (with --members: the greatest of theirs):\n"
    "  0  stopped in order            3  the data directory is in use, of another cluster or\n"
    "  1  some other failure             node, or not readable by this version\n"
    "  2  wrong options or            4  the disk failed or is full\n"
    "     configuration               5  the address cannot be bound\n"
    "\n"
    "dkv-node(8) tells more. Example: dkv-node --config /etc/dkv/dkv.yaml --check\n";

static const char *const levels[] = {
    [DKV_LOG_ERROR] = "error",
    [DKV_LOG_WARN] = "warn",
    [DKV_LOG_INFO] = "info",
    [DKV_LOG_DEBUG] = "debug",
};

static bool read_level(const char *text, dkv_log_level *out) {
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcmp(levels[i], text) != 0) continue;
        *out = (dkv_log_level)i;
        return true;
    }
    fprintf(stderr, "dkv-node: --log-level must be error, warn, info or debug, not \"%s\"\n", text);
    return false;
}

static bool read_format(const char *text, bool *json) {
    *json = strcmp(text, "json") == 0;
    if (*json || strcmp(text, "text") == 0) return true;
    fprintf(stderr, "dkv-node: --log-format must be text or json, not \"%s\"\n", text);
    return false;
}

static bool read_members(const char *text, unsigned *out) {
    size_t digits = strspn(text, "0123456789");
    unsigned long number = strtoul(text, NULL, 10);
    if (digits >= 1 && digits <= 4 && !text[digits] && number >= 1 && number <= DKV_MEMBERS_MAX) {
        *out = (unsigned)number;
        return true;
    }
    fprintf(stderr, "dkv-node: --members must be a whole number from 1 to %u, not \"%s\"\n",
            DKV_MEMBERS_MAX, text);
    return false;
}

enum option_id { CONFIG, NODE, MEMBERS, CHECK, INSECURE, LOG_LEVEL, LOG_FORMAT, VERSION, HELP };

/* Takes one option. Returns false if the program shall end. */
static bool read_option(int option, dkv_options *options, int *status) {
    switch (option) {
    case CONFIG: options->config = optarg; return true;
    case NODE: options->node = optarg; return true;
    case MEMBERS: return read_members(optarg, &options->members);
    case CHECK: options->check = true; return true;
    case INSECURE: options->insecure = true; return true;
    case LOG_LEVEL: return read_level(optarg, &options->log_level);
    case LOG_FORMAT: return read_format(optarg, &options->json);
    case VERSION:
        printf("dkv-node %s\n", DKV_VERSION);
        *status = DKV_EXIT_OK;
        return false;
    case HELP:
        printf("%s%s", usage, help);
        *status = DKV_EXIT_OK;
        return false;
    default: fprintf(stderr, "%sdkv-node --help says more.\n", usage); return false;
    }
}

bool dkv_options_read(int argc, char **argv, dkv_options *out, int *status) {
    static const struct option known[] = {
        {"config", required_argument, NULL, CONFIG},
        {"node", required_argument, NULL, NODE},
        {"members", required_argument, NULL, MEMBERS},
        {"check", no_argument, NULL, CHECK},
        {"insecure", no_argument, NULL, INSECURE},
        {"log-level", required_argument, NULL, LOG_LEVEL},
        {"log-format", required_argument, NULL, LOG_FORMAT},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    dkv_options options = {.log_level = DKV_LOG_INFO};
    *status = DKV_EXIT_USAGE;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (!read_option(option, &options, status)) return false;
    }
    if (optind == argc && options.config) {
        *out = options;
        return true;
    }
    fprintf(stderr, "dkv-node: %s%s\n%sdkv-node --help says more.\n",
            options.config ? "what is this for: " : "--config is missing",
            options.config ? argv[optind] : "", usage);
    return false;
}
