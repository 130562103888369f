/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What a cache on the node would hold, were there one: of each name and type that is asked for
 * through an ENI, until when. A query that comes before that is one a cache would have spared the
 * ENI. Only an answer to one that comes later counts: it is what the cache would have fetched.
 *
 * What is fetched once a TTL costs a thousandth with each thousandth of that time, and not all of
 * it when it is fetched: else whoever looks for less than a TTL would find nothing spared of names
 * that it saw for the first time. So a name costs the query that fetches it; with the second within
 * the TTL that is given back, and its time begins to count.
 *
 * A plain array of small sets, as the table of queries; who was asked for longest ago gives way.
 */
#ifndef ENI53_CACHED_H
#define ENI53_CACHED_H

#include "names.h"
#include "ttl.h"

#define AGAIN_NS 15000000000ULL     /* no client waits longer before it asks the same again */
#define SECOND_NS 1000000000ULL
#define WHOLE 1000                  /* a query, in thousandths */
#define OWED 1                      /* paid_ns of what is not kept: this, and what its last time still owes */

/* Of a question at an ENI; agent/kernel/answered.py makes the same. */
static __always_inline u64 cached_key(u64 hash, u32 dev, u32 vlan)
{
    u64 key = mix(hash, (u64)dev << 32 | vlan);

    return key ? key : 1;
}

static __always_inline struct cached_set *cached_set(u64 key)
{
    u32 set = (key >> 32) & (CACHED_SETS - 1);

    return cached.lookup(&set);
}

/* The place in *set* that *key* has; without one, its oldest if that is *made* the key's. */
static __always_inline struct cached *cached_place(struct cached_set *set, u64 key, int made)
{
    u64 asked_ns, oldest_ns = ~0ULL, way = CACHED_WAYS, oldest = 0;
    struct cached *place;
    int i;

#pragma unroll
    for (i = 0; i < CACHED_WAYS; i++) {
        place = &set->places[i];
        if (place->key == key)
            way = i;
        asked_ns = place->key ? place->asked_ns : 0;
        if (asked_ns < oldest_ns) {
            oldest_ns = asked_ns;
            oldest = i;
        }
    }
    /* The verifier need not follow what comes after it once for each. */
    place = &set->places[forget_path(way == CACHED_WAYS ? oldest : way, key) % CACHED_WAYS];
    if (place->key == key)
        return place;
    if (!made)
        return 0;
    place->key = key;
    place->until_ns = 0;
    place->paid_ns = 0;
    place->ttl_s = NO_TTL;
    place->waiting = 0;
    place->rcode = NO_RCODE;
    return place;
}

/* Thousandths of its fetch that *place* costs for the time until *to_ns*. */
static __always_inline u64 pay(struct cached *place, u64 to_ns)
{
    u64 thousandth_ns = (u64)place->ttl_s * (SECOND_NS / WHOLE), parts;

    if (to_ns <= place->paid_ns || !thousandth_ns)
        return 0;
    parts = (to_ns - place->paid_ns) / thousandth_ns;
    /* What is less than one is left for the next time; a hot name would never pay. */
    place->paid_ns += parts * thousandth_ns;
    return parts < WHOLE ? parts : WHOLE;
}

/* Thousandths of a query for *place* that a cache would have spared the ENI. */
static __always_inline u64 spare(struct cached *place, u64 now_ns)
{
    u64 spared = 0;

    if (now_ns >= place->until_ns) {
        /* What is fetched now costs a whole one: its answer may be one that is not kept. */
        if (place->paid_ns > OWED + WHOLE)
            place->paid_ns = OWED + pay(place, place->until_ns);
        place->until_ns = 0;
        return 0;
    }
    spared = WHOLE;
    if (place->paid_ns <= OWED + WHOLE) {
        spared += WHOLE - (place->paid_ns ? place->paid_ns - OWED : 0);
        place->paid_ns = place->until_ns - place->ttl_s * SECOND_NS;
    }
    return spared - pay(place, now_ns);
}

/*
 * A query goes out. Returns whether it is the last one over again: the same id, and no answer yet;
 * that may come from another port, as glibc's does.
 */
static __always_inline int ask_cached(u64 key, u16 id, u64 now_ns, u64 *spared)
{
    struct cached_set *set = cached_set(key);
    struct cached *place;
    int again;

    *spared = 0;
    if (!set)
        return 0;
    place = cached_place(set, key, 1);
    again = place->waiting && place->id == id && now_ns - place->asked_ns < AGAIN_NS;
    *spared = spare(place, now_ns);
    place->asked_ns = now_ns;
    place->id = id;
    place->waiting = 1;
    return again;
}

/* Its answer has come; *question_end* is where its question ends, from the DNS header on. */
static __always_inline void fetch_cached(struct __sk_buff *skb, const struct packet *p, u64 key,
                                         u32 question_end, int truncated, u8 rcode, u64 now_ns)
{
    struct cached_set *set = cached_set(key);
    struct cached *place = set ? cached_place(set, key, 0) : 0;

    if (!place)
        return;
    place->waiting = 0;
    if (now_ns < place->until_ns)
        return;
    place->rcode = rcode;
    place->ttl_s = NO_TTL;
    /* What does not fit is asked for again over TCP; failures are not kept. */
    if (truncated || (rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN))
        return;
    place->ttl_s = answer_ttl(skb, p->transport + UDP_HEADER, question_end);
    if (place->ttl_s == NO_TTL)
        return;
    place->until_ns = now_ns + place->ttl_s * SECOND_NS;
}

/* An answer from where nobody was asked: to somebody who waits for one from elsewhere? */
static __always_inline int is_waited_for_elsewhere(u64 key, u16 id, u64 now_ns)
{
    struct cached_set *set = cached_set(key);
    struct cached *place = set ? cached_place(set, key, 0) : 0;

    return place && place->waiting && place->id == id && now_ns - place->asked_ns < AGAIN_NS;
}

#endif
