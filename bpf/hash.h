/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ENI53_HASH_H
#define ENI53_HASH_H

#include "maps.h"

static __always_inline u64 mix(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 29);
}

/*
 * For names: twice, and from QUESTION_SEED on, which is another at each start: or whoever may send a
 * packet could choose a name that has the number of somebody else's, and have it read as his. After one
 * multiplication the highest bit has still changed nothing but itself, whatever the seed.
 */
static __always_inline u64 mix_name(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93ULL;
    return hash ^ (hash >> 32);
}

#endif
