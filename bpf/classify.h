/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Which service a packet is for. AWS limits what goes to the resolver and the other link-local
 * services together; what goes to port 53 elsewhere is counted beside it, in a class of its own.
 */
#ifndef ENI53_CLASSIFY_H
#define ENI53_CLASSIFY_H

#include "packet.h"

#define IMDS4           0xa9fea9fe      /* 169.254.169.254 */
#define NTP4            0xa9fea97b      /* 169.254.169.123 */
#define LICENSING4_A    0xa9fea9fa      /* 169.254.169.250 */
#define LICENSING4_B    0xa9fea9fb      /* 169.254.169.251 */

static __always_inline int is_resolver(const struct packet *p, const u32 *address,
                                       const struct settings *s)
{
    int i;

    if (!p->ipv6) {
#pragma unroll
        for (i = 0; i < MAX_RESOLVERS; i++) {
            if (i >= s->resolvers4)
                return 0;
            if (s->resolver4[i] == address[0])
                return 1;
        }
        return 0;
    }
#pragma unroll
    for (i = 0; i < MAX_RESOLVERS; i++) {
        if (i >= s->resolvers6)
            return 0;
        if (s->resolver6[i * 4] == address[0] && s->resolver6[i * 4 + 1] == address[1] &&
            s->resolver6[i * 4 + 2] == address[2] && s->resolver6[i * 4 + 3] == address[3])
            return 1;
    }
    return 0;
}

/* The class of a packet sent, or -1 when it is nothing we count. */
static __always_inline int classify(const struct packet *p, const struct settings *s)
{
    u32 host;

    if (is_resolver(p, p->destination, s))
        return p->destination_port == DNS_PORT ? CLASS_RESOLVER : CLASS_LINKLOCAL_OTHER;
    if (p->ipv6) {
        /* fd00:ec2::254, ::123 and ::250/::251: the last word, with nothing in between. */
        host = p->destination[0] == net32(EC2_NET6) && !p->destination[1] && !p->destination[2]
                   ? net32(p->destination[3]) : 0;
        if (host == 0x254)
            return CLASS_IMDS;
        if (host == 0x123)
            return CLASS_NTP;
        if (host == 0x250 || host == 0x251)
            return CLASS_LINKLOCAL_OTHER;
    } else {
        host = net32(p->destination[0]);
        if (host == IMDS4)
            return CLASS_IMDS;
        if (host == NTP4)
            return CLASS_NTP;
        if (host == LICENSING4_A || host == LICENSING4_B)
            return CLASS_LINKLOCAL_OTHER;
    }
    return p->destination_port == DNS_PORT ? CLASS_DNS_OTHER : -1;
}

#endif
