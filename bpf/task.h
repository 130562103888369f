/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * ENIs in tasks' network namespaces. Interfaces are numbered anew in each namespace, and a program
 * cannot see which one it is in. So such an ENI goes by the class id of its filter, which is ours to
 * choose (clsact only, 16 bits of it arrive; under tcx the field holds anything), and not by its
 * index. Its programs write down that number and call those of any ENI: a copy of these for tasks
 * would be compiled and verified at every start, half a second of it.
 */
#ifndef ENI53_TASK_H
#define ENI53_TASK_H

#include "maps.h"

/*
 * Only for a packet that *way*'s program of an ENI asks take_dev() for: a number that nobody takes
 * would be the next packet's. Nothing else runs these programs on this processor in between.
 */
static __always_inline void go_on(struct __sk_buff *skb, u32 way)
{
    u32 *dev = task_devs.lookup(&way);

    if (!dev)
        return;
    *dev = (u32)TASK_DEV | (skb->tc_classid & 0xffff);
    of_an_eni.call(skb, way);
    *dev = 0;   /* it could not be called */
}

/* Number of the ENI that a packet passes: its interface's, unless a task's program called. */
static __always_inline u32 take_dev(const struct __sk_buff *skb, u32 way)
{
    u32 *handed = task_devs.lookup(&way), dev;

    if (!handed || !*handed)
        return skb->ifindex;
    dev = *handed;
    *handed = 0;
    return dev;
}

#endif
