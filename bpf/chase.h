/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * For whom a cache asks what an alias stands for. unbound, once it has a CNAME as its answer, asks for
 * the target by another query, even when the whole chain is in the answer (dnsmasq never does). So an
 * answer to what was sent for somebody, with an alias in front, makes an ask for the target, as if
 * that somebody had asked. Only such answers are looked at.
 */
#ifndef ENI53_CHASE_H
#define ENI53_CHASE_H

#include "asks.h"

#define TYPE_CNAME 5
#define NAME_STEPS 32       /* labels and jumps of a name; a loop of jumps ends here as well */
#define NAME_JUMP 0xc0      /* the two top bits of a length: the rest of the name is elsewhere */

struct dns_counts {
    u16 questions;
    u16 answers;
};

struct dns_question {
    u16 type;
    u16 class;
};

struct dns_record {
    u16 type;
    u16 class;
    u16 ttl[2];
    u16 length;
};

/*
 * Where a name that begins at *at* ends; 0 when it does not. Here and in read_name() each step
 * forgets how it came about: or the verifier follows what comes after once for each length of a name.
 */
static __always_inline u32 skip_name(struct __sk_buff *skb, u64 at)
{
    u8 length;
    int i;

#pragma clang loop unroll(disable)
    for (i = 0; i < NAME_STEPS; i++) {
        at = forget_path(at, skb->len);
        if (bpf_skb_load_bytes(skb, at, &length, sizeof(length)))
            return 0;
        if (!length)
            return at + 1;
        if (length >= NAME_JUMP)
            return at + 2;
        at += 1 + length;
    }
    return 0;
}

/* The name at *at* of the message at *base*, in one piece; 0 when it has no end, or is the root's. */
static __always_inline int read_name(struct __sk_buff *skb, u32 base, u64 at, struct alias *alias)
{
    u64 filled = 0, size;
    u16 jump;
    u8 length;
    int i;

#pragma clang loop unroll(disable)
    for (i = 0; i < NAME_STEPS; i++) {
        at = forget_path(at, skb->len);
        filled = forget_path(filled, skb->len);
        if (bpf_skb_load_bytes(skb, at, &length, sizeof(length)))
            return 0;
        if (!length) {
            /* hash_name() stops at the first zero; what is behind it may be of another name. */
            *(u64 *)&alias->target[filled & (NAME_BYTES - 1)] = 0;
            return filled != 0;
        }
        if (length >= NAME_JUMP) {
            if (bpf_skb_load_bytes(skb, at, &jump, sizeof(jump)))
                return 0;
            at = base + (net16(jump) & 0x3fff);
            continue;
        }
        size = 1 + length;
        if (length > LABEL_BYTES || filled + size >= NAME_BYTES)
            return 0;
        /* 1 to 64, said so that every kernel's verifier sees it, and the compiler cannot undo it. */
        asm volatile("%0 += -1\n%0 &= 63\n%0 += 1" : "+r"(size));
        if (bpf_skb_load_bytes(skb, at, &alias->target[filled & (NAME_BYTES - 1)], size))
            return 0;
        filled += size;
        at += size;
    }
    return 0;
}

/* The same number for a name in one piece as hash_question() makes of it in a query. */
static __always_inline u64 hash_name(const struct alias *alias, u16 type)
{
    u64 hash = QUESTION_SEED, word, zero;
    int i;

#pragma clang loop unroll(disable)
    for (i = 0; i < NAME_WORDS; i++) {
        word = *(const u64 *)&alias->target[i * sizeof(word)];
        zero = (word - BYTES(1ULL)) & ~word & BYTES(0x80ULL);
        if (zero) {
            hash = mix_name(hash, fold_case(word & (((zero & -zero) >> 7) - 1)));
            hash = mix_name(hash, type);
            return hash ? hash : 1;
        }
        hash = mix_name(hash, fold_case(word));
    }
    return 0;
}

/* Inbound at an ENI: the answer to what was sent for *asker*. */
static __always_inline void chase(struct __sk_buff *skb, const struct packet *p, u32 asker)
{
    u32 base = p->transport + UDP_HEADER, zero = 0, at;
    struct dns_question question;
    struct dns_record record;
    struct dns_counts counts;
    struct ask fresh = {};
    struct alias *alias;
    u64 hash;

    if (bpf_skb_load_bytes(skb, base + sizeof(struct dns_header), &counts, sizeof(counts)) ||
        counts.questions != net16(1) || !counts.answers)
        return;
    at = skip_name(skb, base + DNS_HEADER);
    if (!at || bpf_skb_load_bytes(skb, at, &question, sizeof(question)) ||
        question.type == net16(TYPE_CNAME))     /* who asks for the alias itself has it now */
        return;
    at = skip_name(skb, at + sizeof(question));
    if (!at || bpf_skb_load_bytes(skb, at, &record, sizeof(record)) ||
        record.type != net16(TYPE_CNAME) || record.class != question.class)
        return;
    alias = aliases.lookup(&zero);
    if (!alias || !read_name(skb, base, at + sizeof(record), alias))
        return;
    hash = hash_name(alias, question.type);
    if (!hash)
        return;
    fresh.at_ns = bpf_ktime_get_ns();
    fresh.last_ns = fresh.at_ns;
    fresh.asker = asker;
    fresh.chased = 1;
    __builtin_memcpy(fresh.asked, p->destination, sizeof(fresh.asked));
    if (!is_asked_already(hash, asker, fresh.chased, fresh.at_ns))
        asks.update(&hash, &fresh);
}

#endif
