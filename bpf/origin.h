/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who sends, seen where it cannot be mistaken: at the host's end of the workload's veth. */
#ifndef ENI53_ORIGIN_H
#define ENI53_ORIGIN_H

#include "maps.h"

/*
 * First sight of a (veth, cgroup) pair gives it a tag. Two processors may get here at once; the
 * one whose insert fails hands its tag back. With no tag left the pair is remembered without one,
 * and its packets are known by their veth alone.
 */
static __always_inline struct origin *new_origin(struct origin_key *key)
{
    struct origin fresh = {};
    u32 tag = 0;

    u64 *answered_ns;

    if (free_tags.pop(&tag))
        note(STAT_ORIGIN_EXHAUSTED);
    fresh.tag = tag;
    answered_ns = serving.lookup(&tag);
    if (answered_ns)
        *answered_ns = 0;   /* who had the tag before may have been a cache */
    if (origins.insert(key, &fresh) && tag)
        free_tags.push(&tag, 0);
    return origins.lookup(key);
}

/* Who sends from this host or out of this veth; its first packet makes it known. */
static __always_inline struct origin *find_origin(u32 ifindex, u64 cgroup)
{
    struct origin_key key = { .cgroup = cgroup, .ifindex = ifindex };
    struct origin *origin = origins.lookup(&key);

    if (!origin)
        origin = new_origin(&key);
    if (!origin)
        note(STAT_ORIGIN_FULL);
    return origin;
}

/*
 * The tag under which a sender of this host has asked by way of loopback, or 0. No packet carries it:
 * at an ENI such a sender is known by its cgroup.
 */
static __always_inline u32 local_tag(u64 cgroup)
{
    struct origin_key key = { .cgroup = cgroup, .ifindex = LOOPBACK };
    struct origin *origin = origins.lookup(&key);

    return origin ? origin->tag : 0;
}

/* Returns the tag of who sends, or 0. *class* is below 0 for what is no query of ours. */
static __always_inline u32 count_origin(struct __sk_buff *skb, const struct packet *p, int class,
                                        const struct settings *s)
{
    struct origin *origin = find_origin(skb->ifindex, bpf_skb_cgroup_id(skb));
    u32 counted = class;

    if (!origin)
        return 0;
    /* Or the compiler decides this earlier, where the verifier does not see it. */
    asm volatile("" : "+r"(counted));
    if (counted < CLASSES)
        __sync_fetch_and_add(&origin->sent[counted], wire_packets(skb, p));
    if (s->write_tags && origin->tag)
        skb->tc_index = origin->tag;
    return origin->tag;
}

#endif
