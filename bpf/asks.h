/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who wanted a name, when the sender is a cache; nobody says which those are.
 *
 * A client on another node asks a resolver on this one (CoreDNS, say); what that resolver then asks
 * for the same name, from the address that was asked, is the client's doing.
 *
 * A workload here asks something else than the VPC's resolver, or a process of the host asks a server
 * of the host. If then a sender that may be a cache asks for the same name, that is the workload's
 * doing: a process on the host, or a workload that has answered somebody. It is so once: the cache's
 * retries are its own. Who sends from a network namespace with an ENI of its own is no cache of those
 * that ask by the host's: an awsvpc task, and what reaches a trunk by a VLAN device elsewhere.
 */
#ifndef ENI53_ASKS_H
#define ENI53_ASKS_H

#include "answers.h"

#define ASK_WAIT_NS 5000000000ULL   /* a resolver that has not asked by then will not for this one */
#define LOCAL_WAIT_NS 500000000ULL  /* a cache here that has to ask asks at once */
#define SERVING_NS 60000000000ULL   /* who has answered nobody for so long serves nobody */
#define REMOTE_BIT 0x8000           /* in an asker's id: a client on another node */

static __always_inline int is_query(struct __sk_buff *skb, const struct packet *p,
                                    struct dns_header *header)
{
    return p->protocol == PROTOCOL_UDP && p->destination_port == DNS_PORT &&
           !bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, header, sizeof(*header)) &&
           !(header->flags & DNS_FLAG_RESPONSE);
}

static __always_inline u32 remote_id(const struct packet *p, u64 now_ns)
{
    struct remote_key key = {};
    struct remote *known, fresh = {};
    u32 id = 0;

    __builtin_memcpy(key.address, p->source, sizeof(key.address));
    known = remotes.lookup(&key);
    if (!known) {
        if (free_remotes.pop(&id)) {
            note(STAT_REMOTE_EXHAUSTED);
            return 0;
        }
        fresh.id = id;
        fresh.asked_ns = now_ns;
        if (remotes.insert(&key, &fresh))
            free_remotes.push(&id, 0);      /* another processor was first */
        known = remotes.lookup(&key);
        if (!known)
            return 0;
    }
    known->asked_ns = now_ns;
    return known->id;
}

/* Whether a workload has lately answered somebody. */
static __always_inline int serves(u32 tag, u64 now_ns)
{
    u64 *answered_ns = tag ? serving.lookup(&tag) : 0;

    return answered_ns && *answered_ns && now_ns < *answered_ns + SERVING_NS;
}

static __always_inline u64 ask_wait_ns(const struct ask *ask)
{
    return ask->asker && !(ask->asker & REMOTE_BIT) ? LOCAL_WAIT_NS : ASK_WAIT_NS;
}

static __always_inline void note_last_ask(u64 now_ns)
{
    u32 zero = 0;
    u64 *last = last_ask.lookup(&zero);

    if (last)
        *last = now_ns;
}

/*
 * Whether somebody waits for a name: who missed first is why the cache asks, and stays. But who asks
 * for it by name comes before whoever an alias of it was asked for: not every cache chases those, and
 * one that does has done so by then.
 */
static __always_inline int is_asked_already(u64 hash, u32 asker, u16 chased, u64 now_ns)
{
    struct ask *waiting = asks.lookup(&hash);
    u64 wait_ns;

    note_last_ask(now_ns);
    if (!waiting)
        return 0;
    /* What a remote client asks for may have been in the cache, or have been asked of no cache. */
    wait_ns = asker && !(asker & REMOTE_BIT) ? LOCAL_WAIT_NS : ask_wait_ns(waiting);
    if (waiting->served || now_ns >= waiting->at_ns + wait_ns || (waiting->chased && !chased))
        return 0;
    if (asker && waiting->asker != asker)
        note(STAT_ASK_AMBIGUOUS);
    /* If only this one is not in the cache any more, that asks when the first one's time is over. */
    waiting->last_ns = now_ns;
    return 1;
}

/* Somebody asks for the name of *hash*: *tag*, or if that is 0 the client the packet comes from. */
static __always_inline void remember_asked(const struct packet *p, u32 tag, u64 hash, u64 now_ns)
{
    struct ask fresh = {};

    if (is_asked_already(hash, tag, 0, now_ns))
        return;
    fresh.at_ns = now_ns;
    fresh.last_ns = now_ns;
    fresh.asker = tag ? tag : remote_id(p, now_ns);
    __builtin_memcpy(fresh.asked, p->destination, sizeof(fresh.asked));
    asks.update(&hash, &fresh);
}

/* Somebody asks for a name: *tag*, or if that is 0 a client on another node. */
static __always_inline void remember_ask(struct __sk_buff *skb, const struct packet *p, u32 tag)
{
    u64 now_ns = bpf_ktime_get_ns();
    struct question question = {};
    struct dns_header dns;

    /* What a cache asks another one is no ask: somebody has asked it. */
    if (is_query(skb, p, &dns) && !serves(tag, now_ns) && hash_question(skb, p, &question))
        remember_asked(p, tag, question.hash, now_ns);
}

/* Whether anybody may wait for a name; spares everybody else the hash. */
static __always_inline int is_waited_for(u64 now_ns)
{
    u32 zero = 0;
    u64 *last = last_ask.lookup(&zero);

    return last && now_ns <= *last + ASK_WAIT_NS;
}

/* Outbound at an ENI: for whom a query of this hash goes out, or 0. */
static __always_inline u32 find_asker(struct __sk_buff *skb, u32 dev, const struct packet *p,
                                      u64 hash, u32 tag, u64 now_ns)
{
    struct ask *ask = asks.lookup(&hash);
    u32 ingress = skb->ingress_ifindex;

    if (!ask || now_ns > ask->last_ns + ask_wait_ns(ask))
        return 0;
    if (ask->asker && !(ask->asker & REMOTE_BIT)) {
        if (!ingress && (p->vlan || (dev & (u32)TASK_DEV)))
            return 0;
        if (!ingress)
            tag = local_tag(bpf_skb_cgroup_id(skb));
        /* Its own query, to a server elsewhere or after none answered here: no cache asks. */
        if (ask->asker == tag) {
            ask->served = 1;
            return 0;
        }
        if (ask->served || (ingress && !serves(tag, now_ns)))
            return 0;
        ask->served = 1;
        return ask->asker;
    }
    if (ask->asked[0] != p->source[0] || ask->asked[1] != p->source[1] ||
        ask->asked[2] != p->source[2] || ask->asked[3] != p->source[3])
        return 0;
    ask->served = 1;
    return ask->asker;
}

/* At a workload's veth: it gives an answer, so it may be a cache. */
static __always_inline void note_answer(struct __sk_buff *skb, const struct packet *p, u32 tag)
{
    struct dns_header dns;
    u64 *answered_ns;

    if (!tag || p->protocol != PROTOCOL_UDP ||
        bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, &dns, sizeof(dns)))
        return;
    answered_ns = dns.flags & DNS_FLAG_RESPONSE ? serving.lookup(&tag) : 0;
    if (answered_ns)
        *answered_ns = bpf_ktime_get_ns();
}

#endif
