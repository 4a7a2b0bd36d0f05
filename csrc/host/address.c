#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

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
