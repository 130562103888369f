/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ENI53_HASH_H
#define ENI53_HASH_H

#include "maps.h"

static __always_inline u64 mix(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 29);
}

#endif
