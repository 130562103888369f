/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The programs that eni53 attaches. Each returns TC_ACT_UNSPEC, which tcx calls TCX_NEXT: whatever
 * else is attached goes on as if we were not there.
 *
 *   workload_ingress   host side of a workload's veth: who sends; leaves a tag in the packet
 *   eni_egress         the ENI, outbound: the count that AWS limits, by sender
 *   eni_ingress        the ENI, inbound: answers to what was asked
 *
 * Counters only ever rise, and nobody resets them: a reader takes differences.
 */
#include "maps.h"
#include "origin.h"
#include "window.h"
#include "answers.h"

#define NEXT (-1)   /* TC_ACT_UNSPEC and TCX_NEXT */

int workload_ingress(struct __sk_buff *skb)
{
    struct packet p = {};
    struct settings *s;
    int class;

    if (parse_packet(skb, QUERIES, &p) != PARSED_CANDIDATE)
        return NEXT;
    s = get_settings();
    if (!s)
        return NEXT;
    class = classify(&p, s);
    if (class >= 0)
        count_origin(skb, &p, class, s);
    return NEXT;
}

static __always_inline struct eni *find_eni(u32 dev, struct packet *p)
{
    struct eni_key key = { .dev = dev, .vlan = p->vlan };
    struct eni *eni = enis.lookup(&key), *blank;
    u32 zero = 0;

    if (eni || !p->vlan)
        return eni;
    /* A branch ENI on its trunk: the first packet makes it known. */
    blank = new_eni.lookup(&zero);
    if (blank)
        enis.insert(&key, blank);
    eni = enis.lookup(&key);
    if (eni)
        return eni;
    /* No room to tell it apart: counted with its trunk, rather than nowhere. */
    note(STAT_ENI_FULL);
    key.vlan = p->vlan = 0;
    return enis.lookup(&key);
}

static __always_inline void count_sender(struct __sk_buff *skb, const struct packet *p, int class,
                                         struct eni *eni, u64 packets)
{
    struct sender_key key = {};
    u64 *count, zero = 0;
    u32 cell;

    key.dev = skb->ifindex;
    key.vlan = p->vlan;
    key.ingress = skb->ingress_ifindex;
    key.class = class;
    key.protocol = p->protocol;
    if (key.ingress)
        key.origin = skb->tc_index;
    else
        key.cgroup = bpf_skb_cgroup_id(skb);
    count = senders.lookup_or_try_init(&key, &zero);
    if (count) {
        __sync_fetch_and_add(count, packets);
        return;
    }
    note(STAT_SENDER_FULL);
    cell = class * PROTOCOLS + p->protocol;
    if (cell < CLASSES * PROTOCOLS)
        __sync_fetch_and_add(&eni->overflow[cell], packets);
}

/* A forwarded packet without a tag, from a device nobody owns: its source may still name a pod. */
static __always_inline void count_source(struct __sk_buff *skb, const struct packet *p, int class,
                                         u64 packets)
{
    struct source_key key = {};
    u32 ingress = skb->ingress_ifindex;
    u64 *count, zero = 0;

    if (!ingress || skb->tc_index || veths.lookup(&ingress))
        return;
    key.dev = skb->ifindex;
    key.vlan = p->vlan;
    key.class = class;
    key.protocol = p->protocol;
    __builtin_memcpy(key.address, p->source, sizeof(key.address));
    count = sources.lookup_or_try_init(&key, &zero);
    if (count)
        __sync_fetch_and_add(count, packets);
}

int eni_egress(struct __sk_buff *skb)
{
    struct packet p = {};
    struct settings *s;
    struct eni *eni;
    int class, found = parse_packet(skb, QUERIES, &p);
    u64 packets, now_ns;

    if (found == PARSED_BORING)
        return NEXT;
    if (found != PARSED_CANDIDATE) {
        note(found == PARSED_FRAGMENT ? STAT_FRAGMENT : STAT_MALFORMED);
        return NEXT;
    }
    s = get_settings();
    if (!s)
        return NEXT;
    class = classify(&p, s);
    if (class < 0 || class >= CLASSES)
        return NEXT;
    eni = find_eni(skb->ifindex, &p);
    if (!eni)
        return NEXT;
    packets = wire_packets(skb, &p);
    now_ns = bpf_ktime_get_ns();
    count_sender(skb, &p, class, eni, packets);
    count_source(skb, &p, class, packets);
    count_window(eni, class, packets, now_ns);
    if (class == CLASS_RESOLVER || class == CLASS_DNS_OTHER)
        remember_query(skb, &p, now_ns);
    return NEXT;
}

int eni_ingress(struct __sk_buff *skb)
{
    struct packet p = {};
    struct eni_key key = {};
    struct eni *eni;

    if (parse_packet(skb, ANSWERS, &p) != PARSED_CANDIDATE || p.source_port != DNS_PORT)
        return NEXT;
    key.dev = skb->ifindex;
    key.vlan = p.vlan;
    eni = enis.lookup(&key);
    if (eni)
        count_answer(skb, &p, eni);
    return NEXT;
}
