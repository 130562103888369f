/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Queries on their way and the answers that come back, over UDP. The table is a plain array: a hash
 * map with eviction costs more per packet than everything else here together. A query may stand in
 * any of the few places of its set. With one place to each hash, a thousand queries that wait would
 * lose one in every hundred to others; with four it takes a flood. One that is pushed out is noted as
 * evicted; its answer then has an rcode but no latency, and whether it came is not known.
 */
#ifndef ENI53_ANSWERS_H
#define ENI53_ANSWERS_H

#include "cached.h"
#include "spans.h"

#define DNS_FLAG_RESPONSE 0x80      /* QR, in the first byte of the flags */
#define DNS_FLAG_TRUNCATED 0x02     /* TC, in the same */
#define DNS_RCODE 0x0f              /* in the second */
#define QUERY_WAIT_NS 5000000000LL  /* past it nobody waits: port and id are another query's now */

struct dns_header {
    u16 id;
    u8 flags;
    u8 flags_rcode;
};

/* The same for a query and its answer: *ours* and *theirs* are swapped between the two. */
static __always_inline u64 fingerprint(u32 dev, const u32 *ours, const u32 *theirs, u16 port, u16 id)
{
    u64 hash = mix((u64)dev << 32 | (u32)port << 16 | id, 1);

    hash = mix(hash, (u64)ours[0] << 32 | theirs[0]);
    if (ours[1] | ours[2] | ours[3]) {
        hash = mix(hash, (u64)ours[1] << 32 | theirs[1]);
        hash = mix(hash, (u64)ours[2] << 32 | ours[3]);
        hash = mix(hash, (u64)theirs[2] << 32 | theirs[3]);
    }
    return hash ? hash : 1;
}

static __always_inline struct query_set *query_set(u64 hash)
{
    u32 set = (hash >> 32) & (QUERY_SETS - 1);

    return queries.lookup(&set);
}

/* Place *way* of a set; the verifier need not follow what comes after it once for each. */
static __always_inline struct query *query_place(struct query_set *set, u64 way, u64 unknown)
{
    return &set->queries[forget_path(way, unknown) % QUERY_WAYS];
}

static __always_inline struct eni *eni_of(const struct query *query)
{
    struct eni_key key = { .dev = query->dev, .vlan = query->vlan };

    return enis.lookup(&key);
}

/*
 * A query with this id goes out; *key* is that of its question in the table of what a cache would
 * hold, or 0. Returns whether it waits already: the same question from the same port.
 */
static __always_inline int remember_query(u32 dev, const struct packet *p, u16 id, u64 key,
                                          u32 question_end, u32 asker, struct eni *eni,
                                          u64 now_ns)
{
    u64 hash, span, sent_ns, oldest_ns = ~0ULL, way = 0;
    struct query_set *set;
    struct query *query;
    struct eni *other;
    s64 age;
    int i;

    hash = fingerprint(dev, p->source, p->destination, p->source_port, id);
    set = query_set(hash);
    if (!set)
        return 0;
#pragma unroll
    for (i = 0; i < QUERY_WAYS; i++) {
        query = &set->queries[i];
        if (query->fingerprint == hash) {
            if (now_ns - query->sent_ns < QUERY_WAIT_NS)
                return query->cached == key;    /* latency counts from the first try */
            query->fingerprint = 0;     /* or it has the answer of the one that comes now */
        }
        sent_ns = query->fingerprint ? query->sent_ns : 0;
        if (sent_ns < oldest_ns) {
            oldest_ns = sent_ns;
            way = i;
        }
    }
    query = query_place(set, way, hash);
    age = now_ns - query->sent_ns;  /* below 0: another processor has been faster */
    if (query->fingerprint && age < QUERY_WAIT_NS) {
        note(STAT_QUERY_EVICTED);
        other = age < UNANSWERED_NS ? eni_of(query) : 0;
        if (other)
            waits_no_more(other, query);
    }
    span = present_span(eni, now_ns);
    query->span = span;
    query->dev = dev;
    query->vlan = p->vlan;
    query->cached = key;
    query->question_end = question_end;
    query->asker = asker;
    query->sent_ns = now_ns;
    query->fingerprint = hash;
    count_waiting(eni, span);
    return 0;
}

static __always_inline void count_latency(struct eni *eni, u64 ns)
{
    /* Upper bounds in microseconds: agent/sample.py RESPONSE_BOUNDS_S. */
    u64 us = ns / 1000;
    u32 bucket = (us > 500) + (us > 1000) + (us > 2500) + (us > 5000) + (us > 10000) +
                 (us > 25000) + (us > 50000) + (us > 100000) + (us > 250000) + (us > 500000) +
                 (us > 1000000) + (us > 2500000);

    if (bucket < LATENCY_BUCKETS)
        __sync_fetch_and_add(&eni->latency[bucket], 1);
    __sync_fetch_and_add(&eni->latency_sum_ns, ns);
}

/* An answer that nobody has asked this address for. */
static __always_inline void count_stray(struct __sk_buff *skb, u32 dev, const struct packet *p,
                                        u16 id, struct eni *eni)
{
    struct question question = {};
    u64 now_ns = bpf_ktime_get_ns();

    if (hash_question(skb, p, &question) &&
        is_waited_for_elsewhere(cached_key(question.hash, dev, p->vlan), id, now_ns))
        __sync_fetch_and_add(&eni->elsewhere, 1);
}

/* Returns for whom the query was sent that this is the first answer to; 0: nobody, or no such. */
static __always_inline u32 count_answer(struct __sk_buff *skb, u32 dev, const struct packet *p)
{
    struct eni_key key = { .dev = dev, .vlan = p->vlan };
    u64 hash, now_ns, waited_ns, way = QUERY_WAYS;
    struct dns_header dns;
    struct query_set *set;
    struct query *query;
    struct eni *eni;
    u32 asker;
    int i;

    if (p->protocol != PROTOCOL_UDP ||
        bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, &dns, sizeof(dns)))
        return 0;
    if (!(dns.flags & DNS_FLAG_RESPONSE))
        return 0;
    eni = enis.lookup(&key);
    if (eni) {
        __sync_fetch_and_add(&eni->rcode[dns.flags_rcode & DNS_RCODE], 1);
        if (dns.flags & DNS_FLAG_TRUNCATED)
            __sync_fetch_and_add(&eni->truncated, 1);
    }
    hash = fingerprint(dev, p->destination, p->source, p->destination_port, dns.id);
    set = query_set(hash);
    if (!set)
        return 0;
#pragma unroll
    for (i = 0; i < QUERY_WAYS; i++)
        if (set->queries[i].fingerprint == hash)
            way = i;
    if (way == QUERY_WAYS) {
        if (eni)
            count_stray(skb, dev, p, dns.id, eni);
        return 0;
    }
    query = query_place(set, way, hash);
    /* A branch ENI that nobody could be told apart: its queries were counted with the trunk. */
    if (query->vlan != p->vlan)
        eni = eni_of(query);
    if (!eni)
        return 0;
    now_ns = bpf_ktime_get_ns();
    if (query->cached)
        fetch_cached(skb, p, query->cached, query->question_end, dns.flags & DNS_FLAG_TRUNCATED,
                     dns.flags_rcode & DNS_RCODE, now_ns);
    waited_ns = now_ns - query->sent_ns;
    count_latency(eni, waited_ns);
    if (waited_ns < UNANSWERED_NS)
        waits_no_more(eni, query);
    asker = query->asker;
    query->fingerprint = 0;
    return asker;
}

#endif
