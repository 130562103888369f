/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From a frame to the few things the programs want to know of it. Most packets are neither DNS nor
 * link-local and leave parse_packet() after a handful of loads; keep it so.
 */
#ifndef ENI53_PACKET_H
#define ENI53_PACKET_H

#include "settings.h"

/* Classes and protocols: order and number as in agent/model.py (CLASSES, PROTOCOLS). */
enum packet_class {
    CLASS_RESOLVER,
    CLASS_DNS_OTHER,
    CLASS_IMDS,
    CLASS_NTP,
    CLASS_LINKLOCAL_OTHER,
    CLASSES,
};

enum packet_protocol {
    PROTOCOL_UDP,
    PROTOCOL_TCP,
    PROTOCOL_ICMP,
    PROTOCOL_OTHER,
    PROTOCOLS,
};

/* What parse_packet() found. */
enum parsed {
    PARSED_BORING,      /* neither DNS nor for a link-local service */
    PARSED_CANDIDATE,   /* classify() decides */
    PARSED_FRAGMENT,    /* a later fragment: no port, nobody can say what it is */
    PARSED_SHORT,       /* headers beyond the linear data, or beyond the frame */
    PARSED_MALFORMED,   /* headers that contradict themselves */
};

#define DNS_PORT 53
#define QUERIES 0               /* direction: look for packets to port 53 */
#define INBOUND 1               /* direction: look for answers, from port 53, and for queries */
#define BOTH 2                  /* direction: outbound, look for queries and for answers given */

#define ETHER_IPV4 0x0800
#define ETHER_IPV6 0x86dd
#define ETHER_VLAN 0x8100
#define ETHER_QINQ 0x88a8
#define ETHER_HEADER 14
#define VLAN_HEADER 4
#define IP_ICMP 1
#define IP_TCP 6
#define IP_UDP 17
#define UDP_HEADER 8
#define TCP_WORDS 12            /* where in the TCP header its length stands, in its upper half */
#define IP6_HOP_BY_HOP 0
#define IP6_ROUTING 43
#define IP6_FRAGMENT 44
#define IP6_AUTH 51
#define IP6_ICMP 58
#define IP6_DESTINATION 60
#define IP6_MOBILITY 135
#define IP6_HIP 139
#define IP6_SHIM6 140
#define IP6_EXTENSIONS 8        /* headers followed; no sane packet has more than three */

#define LINKLOCAL4_NET  0xa9fea900      /* 169.254.169.0/24 */
#define EC2_NET6        0xfd000ec2      /* fd00:ec2::/32 */

struct packet {
    u32 source[4];      /* as on the wire; IPv4 in the first word, the rest 0 */
    u32 destination[4];
    u32 transport;      /* offset of the UDP or TCP header; 0 when it is neither */
    u16 source_port;    /* host order; 0 when there is none */
    u16 destination_port;
    u16 vlan;           /* VLAN id, from the metadata or the frame; 0 when untagged */
    u8 ipv6;
    u8 protocol;        /* enum packet_protocol */
};

struct ipv4_header {
    u8 version_length;
    u8 service;
    u16 total_length;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u32 source;
    u32 destination;
};

struct ipv6_header {
    u32 version_class_flow;
    u16 payload_length;
    u8 next_header;
    u8 hop_limit;
    u32 source[4];
    u32 destination[4];
};

#define net16(x) ((u16)__builtin_bswap16(x))
#define net32(x) ((u32)__builtin_bswap32(x))

/* Ports of UDP and TCP stand in the same place; everything else has none. */
static __always_inline int parse_transport(void *l4, void *data, void *end, u8 number, int direction,
                                           int service_address, struct packet *p)
{
    if (number == IP_UDP || number == IP_TCP) {
        u16 *ports = l4;

        if (l4 + 4 > end)
            return PARSED_SHORT;
        if (ports[1] != net16(DNS_PORT) && !service_address &&
            (direction == QUERIES || ports[0] != net16(DNS_PORT)))
            return PARSED_BORING;
        p->source_port = net16(ports[0]);
        p->destination_port = net16(ports[1]);
        p->protocol = number == IP_UDP ? PROTOCOL_UDP : PROTOCOL_TCP;
        p->transport = l4 - data;
        return PARSED_CANDIDATE;
    }
    if (l4 > end)
        return PARSED_SHORT;
    if (number == (p->ipv6 ? IP6_ICMP : IP_ICMP)) {
        /* To a resolver it counts against the limit, and its address may be any: ask classify(). */
        p->protocol = PROTOCOL_ICMP;
        return PARSED_CANDIDATE;
    }
    p->protocol = PROTOCOL_OTHER;
    return service_address ? PARSED_CANDIDATE : PARSED_BORING;
}

static __always_inline int parse_ipv4(void *l3, void *data, void *end, int direction,
                                      struct packet *p)
{
    struct ipv4_header *ip = l3;
    u32 length, address;

    if (l3 + sizeof(*ip) > end)
        return PARSED_SHORT;
    length = (ip->version_length & 0x0f) * 4;
    if (ip->version_length >> 4 != 4 || length < sizeof(*ip))
        return PARSED_MALFORMED;
    if (ip->fragment & net16(0x1fff))
        return PARSED_FRAGMENT;
    address = direction == INBOUND ? ip->source : ip->destination;
    p->source[0] = ip->source;
    p->destination[0] = ip->destination;
    return parse_transport(l3 + length, data, end, ip->protocol, direction,
                           (net32(address) & 0xffffff00) == LINKLOCAL4_NET, p);
}

static __always_inline int is_extension(u8 number)
{
    return number == IP6_HOP_BY_HOP || number == IP6_ROUTING || number == IP6_DESTINATION ||
           number == IP6_FRAGMENT || number == IP6_AUTH || number == IP6_MOBILITY ||
           number == IP6_HIP || number == IP6_SHIM6;
}

/* Whether it goes to where link-local services are, whatever the port. */
static __always_inline int to_service(const struct packet *p)
{
    return p->ipv6 ? p->destination[0] == net32(EC2_NET6)
                   : (net32(p->destination[0]) & 0xffffff00) == LINKLOCAL4_NET;
}

/*
 * *offset*, of which the verifier no longer knows how it came about. Otherwise it follows every
 * combination of extension headers by itself: 550,000 instructions and a second at each start, and
 * kernels give up at a million.
 */
static __always_inline u64 forget_path(u64 offset, u64 unknown)
{
    asm volatile("%0 ^= %1\n%0 ^= %1\n%0 &= 0x7fff" : "+r"(offset) : "r"(unknown));
    return offset;
}

static __always_inline int parse_ipv6(void *l3, void *data, void *end, int direction,
                                      u64 unknown, struct packet *p)
{
    struct ipv6_header *ip = l3;
    void *next = l3 + sizeof(*ip);
    u64 offset = next - data;   /* headers end below 17 KiB: eight of at most 2 KiB each */
    u8 number;
    u32 address;
    int i;

    if (next > end)
        return PARSED_SHORT;
    if ((ip->version_class_flow & 0xf0) != 0x60)
        return PARSED_MALFORMED;
    number = ip->next_header;
    address = direction == INBOUND ? ip->source[0] : ip->destination[0];
    p->ipv6 = 1;
    __builtin_memcpy(p->source, ip->source, 16);
    __builtin_memcpy(p->destination, ip->destination, 16);
#pragma clang loop unroll(disable)
    for (i = 0; i < IP6_EXTENSIONS; i++) {
        u8 *extension;
        u32 length;

        if (!is_extension(number))
            break;
        offset = forget_path(offset, unknown);
        extension = data + offset;
        if ((void *)extension + 8 > end)
            return PARSED_SHORT;
        if (number == IP6_FRAGMENT) {
            if (*(u16 *)(extension + 2) & net16(0xfff8))
                return PARSED_FRAGMENT;
            length = 8;
        } else if (number == IP6_AUTH) {
            length = (extension[1] + 2) * 4;
        } else {
            length = (extension[1] + 1) * 8;
        }
        number = extension[0];
        offset += length;
        next = data + offset;
    }
    if (is_extension(number))
        return PARSED_MALFORMED;
    return parse_transport(next, data, end, number, direction,
                           address == net32(EC2_NET6), p);
}

static __always_inline int parse_linear(struct __sk_buff *skb, int direction, struct packet *p)
{
    void *data = (void *)(long)skb->data;
    void *end = (void *)(long)skb->data_end;
    void *l3 = data + ETHER_HEADER;
    u16 type;
    int i;

    if (l3 > end)
        return PARSED_SHORT;
    type = *(u16 *)(data + 12);
#pragma unroll
    for (i = 0; i < 2; i++) {
        if (type != net16(ETHER_VLAN) && type != net16(ETHER_QINQ))
            break;
        if (l3 + VLAN_HEADER > end)
            return PARSED_SHORT;
        if (!p->vlan)
            p->vlan = net16(*(u16 *)l3) & 0x0fff;
        type = *(u16 *)(l3 + 2);
        l3 += VLAN_HEADER;
    }
    if (type == net16(ETHER_IPV4))
        return parse_ipv4(l3, data, end, direction, p);
    if (type == net16(ETHER_IPV6))
        return parse_ipv6(l3, data, end, direction, skb->len, p);
    return PARSED_BORING;
}

/*
 * A sender with a raw socket may leave the headers in page fragments, outside the linear data that
 * a program can see; without the pull its packets would pass uncounted.
 */
static __always_inline int parse_packet(struct __sk_buff *skb, int direction, struct packet *p)
{
    int found = parse_linear(skb, direction, p);
    u32 headers;

    if (found == PARSED_SHORT) {
        headers = skb->len < 256 ? skb->len : 256;
        if (skb->data_end - skb->data >= headers || bpf_skb_pull_data(skb, headers))
            return found;
        __builtin_memset(p, 0, sizeof(*p));
        found = parse_linear(skb, direction, p);
    }
    /* Last, for only what is counted needs it: the tag in the metadata is the outer one. */
    if (found == PARSED_CANDIDATE && skb->vlan_present && skb->vlan_tci & 0x0fff)
        p->vlan = skb->vlan_tci & 0x0fff;
    return found;
}

/*
 * A GSO skb is many packets on the wire. A sender that hands one in through a raw socket leaves
 * gso_segs at 0 (the kernel counts them later), so it is worked out from the size of the payload.
 */
static __always_inline u64 wire_packets(struct __sk_buff *skb, const struct packet *p)
{
    u32 segments = skb->gso_segs, headers = p->transport + UDP_HEADER;
    u8 words;

    if (segments)
        return segments;
    if (!skb->gso_size)
        return 1;
    if (p->protocol == PROTOCOL_TCP &&
        !bpf_skb_load_bytes(skb, p->transport + TCP_WORDS, &words, sizeof(words)))
        headers = p->transport + (words >> 4) * 4;
    if (headers >= skb->len)
        return 1;
    return (skb->len - headers + skb->gso_size - 1) / skb->gso_size;
}

#endif
