/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Queries on their way and the answers that come back, over UDP. The table is a plain array: a hash
 * map with eviction costs more per packet than everything else here together. A query whose place
 * is taken by another is noted as evicted; its answer then has an rcode but no latency.
 */
#ifndef ENI53_ANSWERS_H
#define ENI53_ANSWERS_H

#include "maps.h"

#define DNS_FLAG_RESPONSE 0x80      /* QR, in the first byte of the flags */
#define DNS_RCODE 0x0f              /* in the second */
#define QUERY_WAIT_NS 5000000000ULL /* past it nobody waits: port and id are another query's now */

struct dns_header {
    u16 id;
    u8 flags;
    u8 flags_rcode;
};

static __always_inline u64 mix(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 29);
}

/* The same for a query and its answer: *ours* and *theirs* are swapped between the two. */
static __always_inline u64 fingerprint(u32 dev, const u32 *ours, const u32 *theirs, u16 port, u16 id)
{
    u64 hash = mix((u64)dev << 32 | (u32)port << 16 | id, 1);

    hash = mix(hash, (u64)ours[0] << 32 | theirs[0]);
    if (ours[1] | ours[2] | ours[3]) {
        hash = mix(hash, (u64)ours[2] << 32 | ours[3]);
        hash = mix(hash, (u64)theirs[2] << 32 | theirs[3]);
    }
    return hash ? hash : 1;
}

static __always_inline struct query *query_place(u64 hash)
{
    u32 place = (hash >> 32) & (QUERY_SLOTS - 1);

    return queries.lookup(&place);
}

static __always_inline void remember_query(struct __sk_buff *skb, u32 dev,
                                           const struct packet *p, u64 now_ns)
{
    struct dns_header dns;
    struct query *query;
    u64 hash;

    if (p->protocol != PROTOCOL_UDP ||
        bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, &dns, sizeof(dns)))
        return;
    if (dns.flags & DNS_FLAG_RESPONSE)
        return;
    hash = fingerprint(dev, p->source, p->destination, p->source_port, dns.id);
    query = query_place(hash);
    if (!query)
        return;
    if (query->fingerprint && now_ns - query->sent_ns < QUERY_WAIT_NS) {
        if (query->fingerprint == hash)
            return;     /* a retransmission: latency counts from the first try */
        note(STAT_QUERY_EVICTED);
    }
    query->sent_ns = now_ns;
    query->fingerprint = hash;
}

static __always_inline void count_latency(struct eni *eni, u64 ns)
{
    /* Upper bounds in microseconds: agent/model.py RESPONSE_BOUNDS_S. */
    u64 us = ns / 1000;
    u32 bucket = (us > 500) + (us > 1000) + (us > 2500) + (us > 5000) + (us > 10000) +
                 (us > 25000) + (us > 50000) + (us > 100000) + (us > 250000) + (us > 500000) +
                 (us > 1000000) + (us > 2500000);

    if (bucket < LATENCY_BUCKETS)
        __sync_fetch_and_add(&eni->latency[bucket], 1);
    __sync_fetch_and_add(&eni->latency_sum_ns, ns);
}

static __always_inline void count_answer(struct __sk_buff *skb, u32 dev,
                                         const struct packet *p, struct eni *eni)
{
    struct dns_header dns;
    struct query *query;
    u64 hash;

    if (p->protocol != PROTOCOL_UDP ||
        bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, &dns, sizeof(dns)))
        return;
    if (!(dns.flags & DNS_FLAG_RESPONSE))
        return;
    __sync_fetch_and_add(&eni->rcode[dns.flags_rcode & DNS_RCODE], 1);
    hash = fingerprint(dev, p->destination, p->source, p->destination_port, dns.id);
    query = query_place(hash);
    if (!query || query->fingerprint != hash)
        return;
    count_latency(eni, bpf_ktime_get_ns() - query->sent_ns);
    query->fingerprint = 0;
}

#endif
