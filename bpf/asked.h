/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Which names are asked for, and by whom: exact counts under the hash of name and type. How a name
 * reads is told once, in a ring buffer that wakes nobody; while that is full it is told with the
 * next query for it. The agent removes what nobody asks for any more, so a flood of names that are
 * asked for once takes the room that is left, and never the place of one that is in use.
 */
#ifndef ENI53_ASKED_H
#define ENI53_ASKED_H

#include "asks.h"

static __always_inline void tell_name(struct __sk_buff *skb, const struct packet *p,
                                      const struct question *question, struct asked *row)
{
    u32 offset = p->transport + UDP_HEADER + DNS_HEADER;
    struct told_name *told;
    u64 length;

    if (offset >= skb->len)
        return;
    length = skb->len - offset;
    if (length > NAME_BYTES)
        length = NAME_BYTES;
    told = told_names.ringbuf_reserve(sizeof(*told));
    if (!told)
        return;
    told->hash = question->hash;
    told->type = question->type;
    told->zero = 0;
    /* 1 to 256, said so that every kernel's verifier sees it, and the compiler cannot undo it. */
    asm volatile("%0 += -1\n%0 &= 255\n%0 += 1" : "+r"(length));
    if (bpf_skb_load_bytes(skb, offset, told->question, length)) {
        told_names.ringbuf_discard(told, BPF_RB_NO_WAKEUP);
        return;
    }
    told->length = length;
    told_names.ringbuf_submit(told, BPF_RB_NO_WAKEUP);
    row->told = 1;
}

static __always_inline void count_asked(struct __sk_buff *skb, const struct packet *p,
                                        const struct question *question,
                                        const struct sender_key *sender, u64 packets)
{
    struct asked_key key = {};
    struct asked *row, fresh = {};

    key.hash = question->hash;
    key.cgroup = sender->cgroup;
    key.dev = sender->dev;
    key.ingress = sender->ingress;
    key.vlan = sender->vlan;
    key.origin = sender->origin;
    key.asker = sender->asker;
    key.class = sender->class;
    row = asked.lookup_or_try_init(&key, &fresh);
    if (!row) {
        note(STAT_ASKED_FULL);
        return;
    }
    __sync_fetch_and_add(&row->queries, packets);
    if (!row->told)
        tell_name(skb, p, question, row);
}

#endif
