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

    if (free_tags.pop(&tag))
        note(STAT_ORIGIN_EXHAUSTED);
    fresh.tag = tag;
    if (origins.insert(key, &fresh) && tag)
        free_tags.push(&tag, 0);
    return origins.lookup(key);
}

static __always_inline void count_origin(struct __sk_buff *skb, const struct packet *p, int class,
                                         const struct settings *s)
{
    struct origin_key key = {};
    struct origin *origin;

    key.cgroup = bpf_skb_cgroup_id(skb);
    key.ifindex = skb->ifindex;
    origin = origins.lookup(&key);
    if (!origin)
        origin = new_origin(&key);
    if (!origin) {
        note(STAT_ORIGIN_FULL);
        return;
    }
    if (class >= 0 && class < CLASSES)
        __sync_fetch_and_add(&origin->sent[class], wire_packets(skb, p));
    if (s->write_tags && origin->tag)
        skb->tc_index = origin->tag;
}

#endif
