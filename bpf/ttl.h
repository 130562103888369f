/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* For how long an answer may be kept. */
#ifndef ENI53_TTL_H
#define ENI53_TTL_H

#include "hash.h"

#define DNS_ANSWERS 6               /* in the header: how many answers, then how many authorities */
#define DNS_POINTER 0xc0            /* a name goes on elsewhere */
#define RECORD_FIXED 10             /* type, class, TTL and length of the data */
#define TYPE_SOA 6                  /* the last four bytes of its data are for what is not there */
#define LONGEST_TTL 604800          /* a week; more than a cache keeps anything */

struct record {
    u16 type;
    u16 class;
    u32 ttl;
    u16 length;
    u16 zero;
};

/* The same number, of which the verifier no longer knows which: it would follow each by itself. */
static __always_inline u32 forget_number(u32 number, u64 unknown)
{
    asm volatile("%0 ^= %1\n%0 ^= %1" : "+r"(number) : "r"(unknown));
    return number;
}

static __always_inline u32 shorter(u32 least, u32 wire)
{
    u32 ttl = net32(wire);

    if (ttl >> 31)
        return 0;                   /* RFC 2181, 8 */
    if (ttl > LONGEST_TTL)
        ttl = LONGEST_TTL;
    return ttl < least ? ttl : least;
}

/*
 * The shortest TTL of the answers; where the name or the type is not there, of the SOA as well, and
 * its minimum (RFC 2308, 5). NO_TTL: there is nothing to keep, or nothing that can be read.
 * *question_end* is where the records begin, from the header at *dns* on.
 */
static __always_inline u32 answer_ttl(struct __sk_buff *skb, u32 dns, u32 question_end)
{
    u32 offset = dns + question_end, least = NO_TTL, answers, left, minimum;
    struct record record = {};
    u16 counts[2];
    u8 label;
    int i;

    if (bpf_skb_load_bytes(skb, dns + DNS_ANSWERS, counts, sizeof(counts)))
        return NO_TTL;
    answers = net16(counts[0]);
    left = answers + net16(counts[1]);
    /* A step is a label or a record: names are pointers as a rule. */
#pragma clang loop unroll(disable)
    for (i = 0; i < ANSWER_STEPS; i++) {
        if (!left || bpf_skb_load_bytes(skb, offset, &label, sizeof(label)))
            break;
        if (label && label < DNS_POINTER) {
            offset += 1 + label;
            continue;
        }
        offset += label ? 2 : 1;
        if (bpf_skb_load_bytes(skb, offset, &record, RECORD_FIXED))
            break;
        offset += RECORD_FIXED + net16(record.length);
        if (answers) {
            answers--;
            least = shorter(least, record.ttl);
        } else if (record.type == net16(TYPE_SOA)) {
            if (bpf_skb_load_bytes(skb, offset - sizeof(minimum), &minimum, sizeof(minimum)))
                break;
            least = shorter(shorter(least, record.ttl), minimum);
        }
        left--;
        least = forget_number(least, offset);
        answers = forget_number(answers, offset);
    }
    return least;
}

#endif
