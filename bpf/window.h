/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The ring of slots from which the agent reads one-second windows, however late it comes; and the
 * wake-up for one that cannot wait.
 */
#ifndef ENI53_WINDOW_H
#define ENI53_WINDOW_H

#include "maps.h"

/* A new slot: what the nine before it hold is summed once, not with each packet. */
static __always_inline void open_slot(struct eni *eni, struct slot *slot, u64 number)
{
    u64 linklocal = 0, dns = 0;
    int i;

#pragma unroll
    for (i = 1; i < WINDOW_SLOTS; i++) {
        struct slot *past = &eni->slots[(number - i) % SLOTS];

        if (past->number != number - i)
            continue;
        linklocal += past->linklocal - past->linklocal_base;
        dns += past->dns - past->dns_base;
    }
    /* A processor that was held up opens a slot that is over: the sums are of the newer one. */
    if (number > eni->before) {
        eni->before_linklocal = linklocal;
        eni->before_dns = dns;
        eni->before = number;
    }
    slot->linklocal_base = slot->linklocal;
    slot->dns_base = slot->dns;
    slot->number = number;
}

/*
 * The window has reached a level: wake the agent, at most once a second for each level. Only the
 * highest one reached is told; the agent knows that the lower ones are below it.
 */
static __always_inline void tell_crossing(struct eni *eni, struct slot *slot, u32 dev, u32 vlan,
                                          u64 now_ns)
{
    struct limit *limit = limits.lookup(&eni->limit);
    struct crossing crossing = {};
    int level;
    u64 sum, *told;

    /* Of a slot that is over: the sums hold its packets already, they would count twice. */
    if (!limit || eni->before != slot->number)
        return;
    sum = limit->on_dns ? eni->before_dns + slot->dns - slot->dns_base
                        : eni->before_linklocal + slot->linklocal - slot->linklocal_base;
    if (sum < limit->packets[0])
        return;
    level = (sum >= limit->packets[1]) + (sum >= limit->packets[2]);
    told = level == 2 ? &eni->told[2] : level == 1 ? &eni->told[1] : &eni->told[0];
    if (slot->number < *told + WINDOW_SLOTS)
        return;
    *told = slot->number;
    crossing.dev = dev;
    crossing.vlan = vlan;
    crossing.level = level;
    crossing.packets = sum;
    crossing.at_ns = now_ns;
    crossings.ringbuf_output(&crossing, sizeof(crossing), 0);
}

static __always_inline void count_window(struct eni *eni, u32 dev, u32 vlan, int class, u64 packets,
                                         u64 now_ns)
{
    u64 number = now_ns / SLOT_NS;
    struct slot *slot = &eni->slots[number % SLOTS];

    if (slot->number != number)
        open_slot(eni, slot, number);
    if (class != CLASS_DNS_OTHER)
        __sync_fetch_and_add(&slot->linklocal, packets);
    if (class == CLASS_RESOLVER || class == CLASS_DNS_OTHER)
        __sync_fetch_and_add(&slot->dns, packets);
    tell_crossing(eni, slot, dev, vlan, now_ns);
}

#endif
