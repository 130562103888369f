/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Queries without an answer, by the stretch of time (span) they were sent in. Nobody goes through
 * the table of queries to find them: a query adds one to its span as it leaves, its answer takes
 * that off again, and what is left when the last answer has had its time is the number.
 */
#ifndef ENI53_SPANS_H
#define ENI53_SPANS_H

#include "maps.h"

/*
 * The span that a query sent now belongs to, as `struct query` holds it.
 *
 * Several processors may open one at the same instant, and none waits for another. So all that is
 * written here is the same whoever writes it, and however late: it depends on eni->span, read once,
 * and on the counter of a place that nothing changes any more. A base taken from the place that is
 * being opened would not do: another processor may have counted a query there already, and it would
 * be reported before its answer had time to come.
 */
static __always_inline u64 present_span(struct eni *eni, u64 now_ns)
{
    u64 number = now_ns / SPAN_NS, span = *(volatile u64 *)&eni->span;
    u64 place, following;

    if (number <= span / SPANS)
        return span;
    place = (span + 1) % SPANS;
    following = (span + 2) % SPANS;
    /* Last used SPANS - 1 spans ago at least, so its last answer in time came before now. */
    eni->spans[following].before = eni->spans[following].waiting;
    eni->spans[place].number = number;
    span = number * SPANS + place;
    asm volatile("" ::: "memory");  /* the number stands before anything is counted under it */
    eni->span = span;
    return span;
}

static __always_inline void count_waiting(struct eni *eni, u64 span)
{
    __sync_fetch_and_add(&eni->spans[span % SPANS].waiting, 1);
}

/* It has been answered in time; or it never can be, and then it is not known to be unanswered. */
static __always_inline void waits_no_more(struct eni *eni, const struct query *query)
{
    struct span *span = &eni->spans[query->span % SPANS];

    /* Or the ENI is another one that has its index. */
    if (span->number == query->span / SPANS)
        __sync_fetch_and_add(&span->waiting, -1);
}

#endif
