/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Servers that are asked first and do not answer: whoever has one in its resolv.conf waits on every
 * name, five seconds mostly, and then asks the next server the same.
 *
 * Whether an answer came is not seen (at a veth only what is sent is, and a cache on this node is
 * not behind an ENI). What is seen is the same question again, to another server, after a while. By
 * the same id it is the same lookup: glibc, musl and c-ares keep it. Go takes a new one; its question
 * counts when it comes after Go's own five seconds, and nobody else's came in between. Whoever asks
 * all servers at once (musl) has not waited, and two lookups of one name that happen to go to two
 * servers (options rotate) have different ids.
 *
 * Not every query is followed, only a few a second of each sender: a flood costs one look into an
 * array. What is followed is counted, with those that were asked again elsewhere.
 */
#ifndef ENI53_FALLBACKS_H
#define ENI53_FALLBACKS_H

#include "asks.h"

#define FOLLOW_EVERY_NS 100000000ULL    /* one query a sender */
#define FOLLOWED_NS 6500000000ULL       /* after it the next query for the name is followed */
#define FALLBACK_LEAST_NS 900000000ULL  /* timeout:1 is the least there is; it is rounded down */
#define FALLBACK_MOST_NS 31000000000ULL /* timeout:30 is the most */
#define GO_LEAST_NS 4750000000ULL
#define GO_MOST_NS 5500000000ULL

/* Never 0, which is a place that nobody has used. */
static __always_inline u64 server_hash(const u32 *address)
{
    u64 hash = mix(address[0], address[1]);

    return mix(hash, (u64)address[2] << 32 | address[3]) | 1;
}

static __always_inline u64 followed_key(const struct fallback_key *who, u64 question)
{
    return mix(mix(question, who->cgroup), (u64)who->dev << 32 | who->vlan);
}

static __always_inline void count_fallback(struct fallback_key *who, const struct followed *first,
                                           u64 waited_ns)
{
    struct fallback *row;

    __builtin_memcpy(who->server, first->server, sizeof(who->server));
    row = fallbacks.lookup(who);
    if (row) {
        __sync_fetch_and_add(&row->fallbacks, 1);
        __sync_fetch_and_add(&row->waited_ns, waited_ns);
    }
}

/* Whether a query is one that was followed, on its way to another server. */
static __always_inline void look_for_first(struct fallback_key *who, const struct packet *p,
                                           u64 key, u16 id, u64 now_ns)
{
    struct followed *first = followed.lookup(&key);
    u64 waited_ns;

    if (!first || (first->server[0] == p->destination[0] && first->server[1] == p->destination[1] &&
                   first->server[2] == p->destination[2] && first->server[3] == p->destination[3]))
        return;
    waited_ns = now_ns - first->at_ns;
    if (first->id == id) {
        if (waited_ns >= FALLBACK_LEAST_NS && waited_ns <= FALLBACK_MOST_NS)
            count_fallback(who, first, waited_ns);
        followed.delete(&key);
    } else if (waited_ns < GO_LEAST_NS) {
        first->others = 1;
    } else if (waited_ns <= GO_MOST_NS && !first->others) {
        count_fallback(who, first, waited_ns);
        followed.delete(&key);
    }
}

static __always_inline void follow(struct fallback_key *who, const struct packet *p, u64 key,
                                   u16 id, struct last_followed *last, u64 server, u64 now_ns)
{
    struct followed fresh = {}, *before = followed.lookup(&key);
    struct fallback none = {}, *row;

    last->at_ns = now_ns;
    if (before && now_ns - before->at_ns < FOLLOWED_NS)
        return;
    if (last->server && last->server != server)
        last->several_ns = now_ns;
    last->server = server;
    __builtin_memcpy(who->server, p->destination, sizeof(who->server));
    row = fallbacks.lookup_or_try_init(who, &none);
    if (!row)
        return;
    __sync_fetch_and_add(&row->queries, 1);
    fresh.at_ns = now_ns;
    fresh.id = id;
    __builtin_memcpy(fresh.server, p->destination, sizeof(fresh.server));
    followed.update(&key, &fresh);
}

static __always_inline struct last_followed *last_of(u32 place)
{
    return last_followed.lookup(&place);
}

static __always_inline int may_follow(const struct last_followed *last, int class, u64 now_ns)
{
    return class == CLASS_DNS_OTHER && now_ns - last->at_ns >= FOLLOW_EVERY_NS;
}

/* Who asks one server alone, and that is most, has no second one. */
static __always_inline int may_be_second(const struct last_followed *last, u64 server, u64 now_ns)
{
    return last->server && now_ns - last->at_ns <= FALLBACK_MOST_NS &&
           (last->server != server ||
            (last->several_ns && now_ns - last->several_ns <= FALLBACK_MOST_NS));
}

#define IS_ASK 1
#define FOLLOWS 2
#define SECOND 4

/* At a workload's veth: a query, for whom a cache may ask next, or which another server has had. */
static __always_inline void note_workloads_query(struct __sk_buff *skb, const struct packet *p,
                                                 int class, u32 tag)
{
    struct last_followed *last = last_of(tag);
    u64 now_ns, server, key, wanted = 0;
    struct question question = {};
    struct fallback_key who = {};
    struct dns_header dns;

    /* Most ask the resolver and nobody else: theirs costs no more than this look. */
    if (!last || (class == CLASS_RESOLVER && !last->server))
        return;
    now_ns = bpf_ktime_get_ns();
    server = server_hash(p->destination);
    /* What a cache asks another one is no ask: somebody has asked it. */
    if (class == CLASS_DNS_OTHER && tag && !serves(tag, now_ns))
        wanted = IS_ASK;
    if (may_follow(last, class, now_ns))
        wanted |= FOLLOWS;
    if (may_be_second(last, server, now_ns))
        wanted |= SECOND;
    /* Or the verifier walks the hash once for each of the above. */
    wanted = forget_path(wanted, skb->len);
    if (!wanted || !is_query(skb, p, &dns) || !hash_question(skb, p, &question))
        return;
    if (wanted & IS_ASK)
        remember_asked(p, tag, question.hash, now_ns);
    if (!(wanted & (FOLLOWS | SECOND)))
        return;
    who.cgroup = bpf_skb_cgroup_id(skb);
    who.dev = skb->ifindex;
    key = followed_key(&who, question.hash);
    if (wanted & SECOND)
        look_for_first(&who, p, key, dns.id, now_ns);
    if (wanted & FOLLOWS)
        follow(&who, p, key, dns.id, last, server, now_ns);
}

/* At an ENI: one that was sent on this side of it, by a process of the host or of a task. */
static __always_inline void note_senders_query(struct __sk_buff *skb, const struct packet *p,
                                               u32 dev, int class, u16 id, u64 hash,
                                               u64 now_ns)
{
    u64 server = server_hash(p->destination), wanted = 0, key;
    struct last_followed *last;
    struct fallback_key who = {};

    who.cgroup = bpf_skb_cgroup_id(skb);
    who.dev = dev;
    who.vlan = p->vlan;
    /* A tag may stand in the same place: two that share one only see fewer of theirs followed. */
    last = last_of(mix(who.cgroup, (u64)dev << 32 | p->vlan) & (SERVING_TAGS - 1));
    if (!last)
        return;
    if (may_follow(last, class, now_ns))
        wanted = FOLLOWS;
    if (may_be_second(last, server, now_ns))
        wanted |= SECOND;
    if (!wanted)
        return;
    key = followed_key(&who, hash);
    if (wanted & SECOND)
        look_for_first(&who, p, key, id, now_ns);
    if (wanted & FOLLOWS)
        follow(&who, p, key, id, last, server, now_ns);
}

#endif
