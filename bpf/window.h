/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The ring of slots from which the agent reads one-second windows, however late it comes. */
#ifndef ENI53_WINDOW_H
#define ENI53_WINDOW_H

#include "maps.h"

static __always_inline void count_window(struct eni *eni, int class, u64 packets, u64 now_ns)
{
    u64 number = now_ns / SLOT_NS;
    struct slot *slot = &eni->slots[number % SLOTS];

    if (slot->number != number) {
        slot->linklocal_base = slot->linklocal;
        slot->dns_base = slot->dns;
        slot->number = number;
    }
    if (class != CLASS_DNS_OTHER)
        __sync_fetch_and_add(&slot->linklocal, packets);
    if (class == CLASS_RESOLVER || class == CLASS_DNS_OTHER)
        __sync_fetch_and_add(&slot->dns, packets);
}

#endif
