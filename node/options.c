#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "dkv_version.h"

static const char usage[] =
    "Usage: dkv-node --config FILE [--check] [--insecure] [--log-level LEVEL]\n";

static const char help[] =
    "\n"
    "Runs one node of a dkv cluster until SIGTERM or SIGINT.\n"
    "\n"
    "  --config FILE      the configuration, see below\n"
    "  --check            check the configuration and exit\n"
    "  --insecure         listen on other addresses than loopback, too: whoever can connect can\n"
    "                     read and write everything\n"
    "  --log-level LEVEL  error, warn, info (default) or debug; the log goes to standard error\n"
    "  --version          print the version and exit\n"
    "  --help             print this and exit\n"
    "\n"
    "The configuration is YAML; the same for all nodes but for `node` and `data`:\n"
    "\n"
    "  cluster: demo            # its name\n"
    "  replication: 3           # on how many nodes each key is kept, 1 to 5\n"
    "  node: n1                 # which of the nodes below this is\n"
    "  data: n1                 # directory for its data, relative to the file; made if its\n"
    "                           # parent directory exists\n"
    "  listen: 127.0.0.1:7001   # optional; default: the node's address\n"
    "  nodes:                   # 1 to 1000; host, zone and weight (1 to 16) are optional\n"
    "    n1: {address: \"127.0.0.1:7001\", host: m1, zone: z1, weight: 1}\n"
    "    n2: {address: \"127.0.0.1:7002\"}\n"
    "    n3: {address: \"127.0.0.1:7003\"}\n"
    "  timing: {attempt_ms: 40} # optional, in milliseconds: attempt_ms, connect_ms, ping_ms,\n"
    "                           # silence_ms, retry_ms, idle_ms\n"
    "\n"
    "Exit status:\n"
    "  0  stopped in order            3  the data directory is in use, of another cluster or\n"
    "  1  some other failure             node, or not readable by this version\n"
    "  2  wrong options or            4  the disk failed or is full\n"
    "     configuration               5  the address cannot be bound\n";

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

bool dkv_options_read(int argc, char **argv, dkv_options *out, int *status) {
    enum { CONFIG, CHECK, INSECURE, LOG_LEVEL, VERSION, HELP };
    static const struct option known[] = {
        {"config", required_argument, NULL, CONFIG},
        {"check", no_argument, NULL, CHECK},
        {"insecure", no_argument, NULL, INSECURE},
        {"log-level", required_argument, NULL, LOG_LEVEL},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    dkv_options options = {.log_level = DKV_LOG_INFO};
    *status = DKV_EXIT_USAGE;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case CONFIG: options.config = optarg; break;
        case CHECK: options.check = true; break;
        case INSECURE: options.insecure = true; break;
        case LOG_LEVEL:
            if (!read_level(optarg, &options.log_level)) return false;
            break;
        case VERSION:
            printf("dkv-node %s\n", DKV_VERSION);
            *status = DKV_EXIT_OK;
            return false;
        case HELP:
            printf("%s%s", usage, help);
            *status = DKV_EXIT_OK;
            return false;
        default: fputs(usage, stderr); return false;
        }
    }
    if (optind < argc || !options.config) {
        fprintf(stderr, "dkv-node: %s\n%s",
                options.config ? "there are words too many" : "--config is missing", usage);
        return false;
    }
    *out = options;
    return true;
}
