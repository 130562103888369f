/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who wanted a name, when the sender is a cache. A client on another node asks a resolver on this
 * one (CoreDNS, say); what that resolver then asks for the same name, from the address that was
 * asked, is the client's doing.
 */
#ifndef ENI53_ASKS_H
#define ENI53_ASKS_H

#include "names.h"

#define ASK_WAIT_NS 5000000000ULL   /* a resolver that has not asked by then will not for this one */
#define REMOTE_BIT 0x8000           /* in an asker's id: a client on another node */

static __always_inline int is_query(struct __sk_buff *skb, const struct packet *p)
{
    struct dns_header dns;

    return p->protocol == PROTOCOL_UDP && p->destination_port == DNS_PORT &&
           !bpf_skb_load_bytes(skb, p->transport + UDP_HEADER, &dns, sizeof(dns)) &&
           !(dns.flags & DNS_FLAG_RESPONSE);
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

/* Inbound at an ENI: a client asks for a name here. One that is still waited for stays. */
static __always_inline void remember_ask(struct __sk_buff *skb, const struct packet *p)
{
    u64 now_ns = bpf_ktime_get_ns(), hash, *last;
    struct ask fresh = {}, *waiting;
    u32 zero = 0;
    u16 type = 0;

    if (!is_query(skb, p))
        return;
    hash = hash_question(skb, p, &type);
    if (!hash)
        return;
    waiting = asks.lookup(&hash);
    if (waiting && !waiting->served && now_ns < waiting->at_ns + ASK_WAIT_NS)
        return;
    fresh.at_ns = now_ns;
    fresh.asker = remote_id(p, now_ns);
    __builtin_memcpy(fresh.asked, p->destination, sizeof(fresh.asked));
    asks.update(&hash, &fresh);
    last = last_ask.lookup(&zero);
    if (last)
        *last = now_ns;
}

/* Whether anybody may wait for a name; spares everybody else the hash. */
static __always_inline int is_waited_for(u64 now_ns)
{
    u32 zero = 0;
    u64 *last = last_ask.lookup(&zero);

    return last && now_ns <= *last + ASK_WAIT_NS;
}

/* Outbound at an ENI: the id of the client for whom a query of this hash goes out, or 0. */
static __always_inline u32 find_asker(const struct packet *p, u64 hash, u64 now_ns)
{
    struct ask *ask = asks.lookup(&hash);

    if (!ask || now_ns > ask->at_ns + ASK_WAIT_NS)
        return 0;
    if (ask->asked[0] != p->source[0] || ask->asked[1] != p->source[1] ||
        ask->asked[2] != p->source[2] || ask->asked[3] != p->source[3])
        return 0;
    ask->served = 1;
    return ask->asker;
}

#endif
