/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The name and type that a query over UDP asks for, as one number. */
#ifndef ENI53_NAMES_H
#define ENI53_NAMES_H

#include "hash.h"

#define DNS_HEADER 12
#define TYPE_AND_CLASS 4
#define NAME_WORDS 32               /* a name has at most 255 bytes */
#define BYTES(x) ((x) * 0x0101010101010101ULL)

/* A to Z in all eight bytes at once. A label's length is at most 63 and so never taken for one. */
static __always_inline u64 fold_case(u64 word)
{
    u64 low = word & BYTES(0x7fULL);
    u64 upper = (low + BYTES(0x3fULL)) & ~(low + BYTES(0x25ULL)) & ~word & BYTES(0x80ULL);

    return word | upper >> 2;
}

/* The eight bytes at *offset*, with zeros for those beyond the end of the frame. */
static __always_inline u64 word_at(struct __sk_buff *skb, u32 offset)
{
    void *at = (void *)(long)skb->data + (offset & 0x7fff);
    u64 word = 0;
    u32 left;

    /* Most are in the linear data, where a look costs a tenth of a call. */
    if (at + sizeof(word) <= (void *)(long)skb->data_end)
        return *(u64 *)at;
    if (!bpf_skb_load_bytes(skb, offset, &word, sizeof(word)))
        return word;
    word = 0;
    if (offset >= skb->len)
        return 0;
    left = skb->len - offset;
    /* 1 to 8, said so that every kernel's verifier sees it, and the compiler cannot undo it. */
    asm volatile("%0 += -1\n%0 &= 7\n%0 += 1" : "+r"(left));
    bpf_skb_load_bytes(skb, offset, &word, left);
    return word;
}

/* What a query asks for. */
struct question {
    u64 hash;       /* of name and type, case folded; never 0 */
    u32 end;        /* where the question ends, from the DNS header on */
    u16 type;       /* as on the wire */
};

/*
 * Reads the first question; 0 when the packet has none. What comes behind it (class, EDNS) is
 * ignored. The name ends at its first zero byte: a label with a zero in it gets the hash of a
 * shorter name, which harms nobody but its sender.
 */
static __always_inline int hash_question(struct __sk_buff *skb, const struct packet *p,
                                         struct question *question)
{
    u32 offset = p->transport + UDP_HEADER + DNS_HEADER;
    u64 hash = QUESTION_SEED, word, zero, below;
    int i;

#pragma clang loop unroll(disable)
    for (i = 0; i < NAME_WORDS; i++) {
        word = word_at(skb, offset);
        zero = (word - BYTES(1ULL)) & ~word & BYTES(0x80ULL);
        if (zero) {
            /* The lowest bit set marks the first zero byte; all below it belongs to the name. */
            below = ((zero & -zero) >> 7) - 1;
            offset += 1 + !!(below & 0xff) + !!(below & 0xff00) + !!(below & 0xff0000) +
                      !!(below & 0xff000000) + !!(below & 0xff00000000ULL) +
                      !!(below & 0xff0000000000ULL) + !!(below & 0xff000000000000ULL);
            hash = mix_name(hash, fold_case(word & below));
            if (bpf_skb_load_bytes(skb, offset, &question->type, sizeof(question->type)))
                return 0;
            hash = mix_name(hash, question->type);
            question->hash = hash ? hash : 1;
            question->end = offset + TYPE_AND_CLASS - p->transport - UDP_HEADER;
            return 1;
        }
        hash = mix_name(hash, fold_case(word));
        offset += sizeof(word);
    }
    return 0;
}

#endif
