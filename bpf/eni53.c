/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The programs that eni53 attaches. Each returns TC_ACT_UNSPEC, which tcx calls TCX_NEXT: whatever
 * else is attached goes on as if we were not there.
 *
 *   workload_ingress   host side of a workload's veth: who sends; leaves a tag in the packet
 *   asker_lo           loopback: which processes of the host ask a cache of the host
 *   eni_egress         the ENI, outbound: the count that AWS limits, by sender
 *   eni_ingress        the ENI, inbound: answers to what was asked; what others ask us
 *   task_egress,
 *   task_ingress       an ENI in a task's network namespace: they say which, and call these two
 *
 * Counters only ever rise, and nobody resets them: a reader takes differences.
 */
#include "maps.h"
#include "origin.h"
#include "window.h"
#include "asked.h"
#include "fallbacks.h"
#include "chase.h"
#include "task.h"

#define NEXT (-1)   /* TC_ACT_UNSPEC and TCX_NEXT */

int workload_ingress(struct __sk_buff *skb)
{
    struct packet p = {};
    struct settings *s;
    int class, answer;
    u32 tag;

    if (parse_packet(skb, BOTH, &p) != PARSED_CANDIDATE)
        return NEXT;
    s = get_settings();
    if (!s)
        return NEXT;
    answer = p.source_port == DNS_PORT && p.destination_port != DNS_PORT;
    /* An answer to an address of the resolver's is looked at here, and passes the ENI unseen. */
    class = answer && !to_service(&p) ? -1 : classify(&p, s);
    if (class < 0 && !answer)
        return NEXT;
    tag = count_origin(skb, &p, class, s);
    if (answer)
        note_answer(skb, &p, tag);
    else if (class == CLASS_DNS_OTHER || class == CLASS_RESOLVER)
        note_workloads_query(skb, &p, class, tag);
    return NEXT;
}

/* Outbound on lo. Nothing is counted, for it reaches no ENI, and no packet is written to. */
int asker_lo(struct __sk_buff *skb)
{
    struct packet p = {};
    struct origin *origin;
    u64 cgroup;

    if (parse_packet(skb, BOTH, &p) != PARSED_CANDIDATE || p.protocol != PROTOCOL_UDP ||
        (p.source_port != DNS_PORT && p.destination_port != DNS_PORT))
        return NEXT;
    cgroup = bpf_skb_cgroup_id(skb);
    /* Of whoever is in none we could not say later whether he asks for himself. */
    origin = cgroup ? find_origin(LOOPBACK, cgroup) : 0;
    if (!origin || !origin->tag)
        return NEXT;
    if (p.destination_port == DNS_PORT)
        remember_ask(skb, &p, origin->tag);
    else
        note_answer(skb, &p, origin->tag);
    return NEXT;
}

static __always_inline struct eni *find_eni(u32 dev, struct packet *p)
{
    struct eni_key key = { .dev = dev, .vlan = p->vlan };
    struct eni *eni = enis.lookup(&key), *blank;
    u32 zero = 0;

    if (eni || !p->vlan)
        return eni;
    if (trunks.lookup(&dev)) {
        /* A branch ENI on its trunk: the first packet makes it known. */
        blank = new_eni.lookup(&zero);
        if (blank)
            enis.insert(&key, blank);
        eni = enis.lookup(&key);
        if (eni)
            return eni;
        note(STAT_ENI_FULL);
    } else {
        /* A raw socket can put any tag on a frame; that makes no new ENI. */
        note(STAT_VLAN_UNKNOWN);
    }
    /* Not to be told apart: counted with its device, rather than nowhere. */
    key.vlan = p->vlan = 0;
    return enis.lookup(&key);
}

/* What our program at the veth wrote; while it writes nothing, whatever is there is another's. */
static __always_inline u16 read_tag(const struct __sk_buff *skb, const struct settings *s)
{
    return s->write_tags ? skb->tc_index : 0;
}

/* *question* is what to count by name, or 0. */
static __always_inline void count_sender(struct __sk_buff *skb, u32 dev, const struct packet *p,
                                         int class, u32 asker, u16 tag,
                                         const struct question *question, struct eni *eni,
                                         u64 packets)
{
    struct sender_key key = {};
    u64 *count, zero = 0;
    u32 cell;

    key.dev = dev;
    key.vlan = p->vlan;
    key.ingress = skb->ingress_ifindex;
    key.class = class;
    key.protocol = p->protocol;
    key.asker = asker;
    if (key.ingress)
        key.origin = tag;
    else
        key.cgroup = bpf_skb_cgroup_id(skb);
    if (question)
        count_asked(skb, p, question, &key, packets);
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
static __always_inline void count_source(struct __sk_buff *skb, u32 dev, const struct packet *p,
                                         int class, u16 tag, u64 packets)
{
    struct source_key key = {};
    u32 ingress = skb->ingress_ifindex;
    u64 *count, zero = 0;

    if (!ingress || tag || veths.lookup(&ingress))
        return;
    key.dev = dev;
    key.vlan = p->vlan;
    key.class = class;
    key.protocol = p->protocol;
    __builtin_memcpy(key.address, p->source, sizeof(key.address));
    count = sources.lookup_or_try_init(&key, &zero);
    if (count)
        __sync_fetch_and_add(count, packets);
}

/* A query over UDP: what a cache would have made of it, and when it went out. */
static __always_inline void count_query(u32 dev, const struct packet *p, int class, u16 id,
                                        const struct question *question, u32 asker,
                                        struct eni *eni, u64 packets, u64 now_ns)
{
    u64 key = question ? cached_key(question->hash, dev, p->vlan) : 0;
    u64 spared = 0;
    int again;

    again = remember_query(dev, p, id, key, question ? question->end : 0, asker, eni, now_ns);
    if (question)
        again |= ask_cached(key, id, now_ns, &spared);
    if (again)
        __sync_fetch_and_add(&eni->retransmitted, packets);
    if (spared)
        __sync_fetch_and_add(class == CLASS_RESOLVER ? &eni->cacheable_resolver
                                                     : &eni->cacheable_other, spared);
}

/* Whether a packet is to be looked at; one that nobody can read is noted. */
static __always_inline int is_outbound(struct __sk_buff *skb, struct packet *p)
{
    int found = parse_packet(skb, QUERIES, p);

    if (found == PARSED_CANDIDATE)
        return 1;
    if (found != PARSED_BORING)
        note(found == PARSED_FRAGMENT ? STAT_FRAGMENT : STAT_MALFORMED);
    return 0;
}

int eni_egress(struct __sk_buff *skb)
{
    struct packet p = {};
    struct settings *s;
    struct eni *eni;
    int class;
    struct question question = {};
    struct dns_header dns;
    u32 dev, asker = 0, waited_for, named = 0;
    u64 packets, now_ns;
    u16 tag;

    if (!is_outbound(skb, &p))
        return NEXT;
    dev = take_dev(skb, TASK_EGRESS);
    s = get_settings();
    if (!s)
        return NEXT;
    class = classify(&p, s);
    if (class < 0)
        return NEXT;
    /* Or the verifier walks the rest once for each class: twice as many instructions. */
    class = forget_path(class, skb->len);
    if (class >= CLASSES)
        return NEXT;
    eni = find_eni(dev, &p);
    if (!eni)
        return NEXT;
    tag = read_tag(skb, s);
    packets = wire_packets(skb, &p);
    now_ns = bpf_ktime_get_ns();
    if ((class == CLASS_RESOLVER || class == CLASS_DNS_OTHER) && is_query(skb, &p, &dns)) {
        waited_for = is_waited_for(now_ns);
        if (s->names || waited_for)
            named = hash_question(skb, &p, &question);
        if (named && waited_for)
            asker = find_asker(skb, dev, &p, question.hash, tag, now_ns);
        /* What was forwarded has been seen at its veth. */
        if (named && !skb->ingress_ifindex)
            note_senders_query(skb, &p, dev, class, dns.id, question.hash, now_ns);
        named &= !!s->names;
        count_query(dev, &p, class, dns.id, named ? &question : 0, asker, eni,
                    packets, now_ns);
    }
    count_sender(skb, dev, &p, class, asker, tag, named ? &question : 0, eni, packets);
    if (!asker)
        count_source(skb, dev, &p, class, tag, packets);
    count_window(eni, dev, p.vlan, class, packets, now_ns);
    return NEXT;
}

int eni_ingress(struct __sk_buff *skb)
{
    struct packet p = {};
    u32 dev, asker;

    if (parse_packet(skb, INBOUND, &p) != PARSED_CANDIDATE)
        return NEXT;
    dev = take_dev(skb, TASK_INGRESS);
    if (p.destination_port == DNS_PORT)
        remember_ask(skb, &p, 0);
    /* Not instead: there are resolvers that ask from port 53. */
    if (p.source_port == DNS_PORT) {
        asker = count_answer(skb, dev, &p);
        if (asker)
            chase(skb, &p, asker);
    }
    return NEXT;
}

int task_egress(struct __sk_buff *skb)
{
    struct packet p = {};

    if (is_outbound(skb, &p))
        go_on(skb, TASK_EGRESS);
    return NEXT;
}

int task_ingress(struct __sk_buff *skb)
{
    struct packet p = {};

    if (parse_packet(skb, INBOUND, &p) == PARSED_CANDIDATE)
        go_on(skb, TASK_INGRESS);
    return NEXT;
}
