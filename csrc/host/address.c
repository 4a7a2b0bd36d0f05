#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "host/internal.h"

/* The host part without the brackets of "[::1]:7001". False if there is none. */
static bool host_part(const char *address, char *host, size_t size) {
    const char *colon = strrchr(address, ':');
    if (!colon) return false;
    size_t len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    if (len == 0 || len >= size) return false;
    memcpy(host, address, len);
    host[len] = 0;
    return true;
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    }
    return false;
}

bool dkv_address_is_loopback(const char *address) {
    char host[DKV_ADDRESS_MAX + 1];
    struct addrinfo *found;
    if (!host_part(address, host, sizeof host)) return false;
    if (getaddrinfo(host, NULL, NULL, &found) != 0) return false;
    bool all = true;
    for (const struct addrinfo *each = found; each; each = each->ai_next) {
        all = all && is_loopback(each->ai_addr);
    }
    freeaddrinfo(found);
    return all;
}

/* ---- can it be bound? ---- */

/* 0, or the errno of why not. */
static int try_bind(const struct addrinfo *to) {
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    const int on = 1; /* as gRPC does */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind(fd, to->ai_addr, to->ai_addrlen) ? errno : 0;
    close(fd);
    return error;
}

static int refuse(char *why, const char *address, int error) {
    const char *advice = "";
    switch (error) {
    case EADDRINUSE:
        advice =
            "; another program listens there, or the same node is running already: stop it, "
            "or give this node another address";
        break;
    case EADDRNOTAVAIL:
        advice =
            "; it is not an address of this machine: if nodes and clients reach it by "
            "another one, set `listen` to the one to bind";
        break;
    case EACCES: advice = "; ports below 1024 are for root: take a higher one"; break;
    default: break;
    }
    snprintf(why, DKV_DETAIL_MAX, "%s: cannot listen there: %s%s", address, strerror(error),
             advice);
    return DKV_ERR_UNAVAILABLE;
}

int dkv_address_try(const char *address, char *why) {
    char host[DKV_ADDRESS_MAX + 1];
    struct addrinfo *found;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    if (!host_part(address, host, sizeof host)) return refuse(why, address, EINVAL);
    int failed = getaddrinfo(host, strrchr(address, ':') + 1, &hints, &found);
    if (failed) {
        snprintf(why, DKV_DETAIL_MAX, "%s: cannot listen there: the name cannot be resolved: %s",
                 address, gai_strerror(failed));
        return DKV_ERR_UNAVAILABLE;
    }
    /* A name may stand for several addresses, of which one that can be bound is enough. */
    int error = 0;
    bool bound = false;
    for (const struct addrinfo *each = found; each && error != EADDRINUSE; each = each->ai_next) {
        int result = try_bind(each);
        if (result) error = result;
        bound = bound || !result;
    }
    freeaddrinfo(found);
    return error == EADDRINUSE || !bound ? refuse(why, address, error) : DKV_OK;
}
