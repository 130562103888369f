/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Every map, and the shapes of what is in them. The agent's own copies of these structures stand in
 * agent/kernel/layout.py; it compares them with what BCC derives from here and refuses to start
 * when they differ. Padding is written out, for a key with stray bytes is never found again.
 */
#ifndef ENI53_MAPS_H
#define ENI53_MAPS_H

#include "classify.h"

#define NO_TTL 0xffffffff
#define NO_RCODE 0xff
#define RCODE_NOERROR 0
#define RCODE_NXDOMAIN 3
#define MMAPABLE (1U << 10)     /* BPF_F_MMAPABLE, which older BCC does not know */

/* Events that cost a packet its name or its count; map stats, one number each. */
enum stat {
    STAT_FRAGMENT,          /* later fragments at an ENI: no port, so not counted as anything */
    STAT_MALFORMED,         /* IP headers at an ENI that contradict themselves or end early */
    STAT_ORIGIN_EXHAUSTED,  /* no free origin tag: the packet went on without one */
    STAT_ORIGIN_FULL,       /* no room to remember another veth and cgroup */
    STAT_SENDER_FULL,       /* no room for another sender: counted in the ENI's overflow */
    STAT_ENI_FULL,          /* no room for another branch ENI: counted with its trunk */
    STAT_QUERY_EVICTED,     /* a waiting query lost its place to another */
    STAT_VLAN_UNKNOWN,      /* tagged frames on an ENI that is no trunk: counted as the ENI's own */
    STAT_REMOTE_EXHAUSTED,  /* no id left for another remote client: its cache is charged */
    STAT_ASK_AMBIGUOUS,     /* another asked for a name that somebody here waits for already */
    STAT_ASKED_FULL,        /* no room for another name: the query is counted, but not by name */
    STATS,
};

/* Directions in which a task's program hands over to the ENI's. */
enum task_way {
    TASK_EGRESS,
    TASK_INGRESS,
    TASK_WAYS,
};

struct origin_key {
    u64 cgroup;             /* of the sending socket; 0: the kernel had none */
    u32 ifindex;            /* host-side veth */
    u32 zero;
};

struct origin {
    u64 sent[CLASSES];      /* packets seen at the veth */
    u32 tag;                /* what goes into tc_index; 0: none was free */
    u32 zero;
};

struct sender_key {
    u64 cgroup;             /* of a sender on this host; 0 when forwarded, or the kernel's own */
    u32 dev;                /* the ENI's interface, or TASK_DEV and its class id */
    u32 ingress;            /* the interface it came in by; 0: sent on this host */
    u16 vlan;               /* branch ENI on a trunk; 0: the interface itself */
    u16 origin;             /* tag from the veth; 0: none */
    u16 asker;              /* who wanted the name, when the sender is a cache; 0: the sender */
    u8 class;
    u8 protocol;
};

struct source_key {
    u32 dev;
    u16 vlan;
    u8 class;
    u8 protocol;
    u32 address[4];
};

struct eni_key {
    u32 dev;
    u32 vlan;
};

/*
 * A slot counts for ever and never forgets; what it holds of its present number is count minus
 * base, base being the count when the number was last written. Two processors that open a slot at
 * the same instant can put one packet on the wrong side of the base. None is ever lost.
 */
struct slot {
    u64 number;             /* ktime / SLOT_NS */
    u64 linklocal;
    u64 linklocal_base;
    u64 dns;
    u64 dns_base;
};

/*
 * Queries sent within one span of SPAN_NS, in one of the SPANS places that take turns. Whoever reads
 * a place while it is in use must read *waiting* before *number*: hence their order.
 */
struct span {
    s64 waiting;            /* queries less their answers in time, over all uses of this place */
    s64 before;             /* the same at the end of the use before this one */
    u64 number;             /* ktime / SPAN_NS */
};

/* When to wake the agent: packets in the window, by level; all ones: never. Index 0 is the default. */
struct limit {
    u64 packets[LEVELS];
    u32 on_dns;             /* the basis: 1 all of port 53, 0 link-local services */
    u32 zero;
};

/* The window of an ENI has reached a level. */
struct crossing {
    u32 dev;
    u32 vlan;
    u32 level;
    u32 zero;
    u64 packets;
    u64 at_ns;
};

struct eni {
    u32 limit;                              /* index in map limits */
    u32 zero;
    u64 before_linklocal;                   /* in the window's slots before the one in progress */
    u64 before_dns;
    u64 before;                             /* the slot that these two come before */
    u64 told[LEVELS];                       /* slot in which a level was last told */
    u64 overflow[CLASSES * PROTOCOLS];      /* packets that found the sender table full */
    u64 rcode[16];
    u64 latency[LATENCY_BUCKETS];
    u64 latency_sum_ns;
    u64 cacheable_resolver;                 /* thousandths of queries that a cache would have ... */
    u64 cacheable_other;                    /* ... answered: to the resolver, and to others */
    u64 retransmitted;                      /* queries that were the last one over again */
    u64 truncated;                          /* answers that said so */
    u64 elsewhere;                          /* answers from another address than was asked */
    u64 span;                               /* in progress: number * SPANS + place */
    struct span spans[SPANS];
    struct slot slots[SLOTS];
};

struct query {
    u64 fingerprint;        /* of addresses, port and id; 0: free */
    u64 sent_ns;
    u64 span;               /* where it waits: number * SPANS + place, ... */
    u32 dev;                /* ... of the ENI it was counted at */
    u32 vlan;
    u64 cached;             /* its key in map cached; 0: none */
    u32 question_end;
    u32 asker;              /* for whom a cache sent it; 0: nobody */
};

struct query_set {
    struct query queries[QUERY_WAYS];
};

/* A question that is asked through an ENI, and what a cache on the node would hold of it. */
struct cached {
    u64 key;                /* of question and ENI; 0: free */
    u64 until_ns;           /* it would answer until then */
    u64 asked_ns;
    u64 paid_ns;            /* its fetch has been paid for until then; small: bpf/cached.h, OWED */
    u32 ttl_s;              /* of the answer it would have fetched last; NO_TTL: not to be kept */
    u16 id;                 /* of the latest query */
    u8 waiting;             /* that one has no answer yet */
    u8 rcode;               /* of the answer it would have fetched last; NO_RCODE: there was none */
};

struct cached_set {
    struct cached places[CACHED_WAYS];
};

/* A name that somebody asked a cache here for, under the hash of name and type. */
struct ask {
    u64 at_ns;
    u64 last_ns;            /* when somebody last asked for the same: a cache may ask since then */
    u32 asked[4];           /* the address a remote client asked: what that one sends on is meant */
    u32 asker;              /* tag of a workload here, or id of a remote client; 0: had none */
    u16 served;             /* a query has gone out for it */
    u16 chased;             /* nobody asked for it by name: it is what an alias stands for */
};

/* What an alias stands for, in one piece: a label may be written behind the last place it may begin. */
struct alias {
    u8 target[NAME_BYTES + LABEL_BYTES + 1];
};

/* A name and type that somebody asks for, and who: the same fields as in struct sender_key. */
struct asked_key {
    u64 hash;               /* of name and type, case folded */
    u64 cgroup;
    u32 dev;
    u32 ingress;
    u16 vlan;
    u16 origin;
    u16 asker;
    u8 class;
    u8 zero;
};

struct asked {
    u64 queries;
    u32 told;               /* the agent has been told how it reads */
    u32 zero;
};

/* How a name reads: as it stands in the query, with what follows it there. */
struct told_name {
    u64 hash;
    u32 length;
    u16 type;               /* as on the wire */
    u16 zero;
    u8 question[NAME_BYTES];
};

struct remote_key {
    u32 address[4];
};

struct remote {
    u64 asked_ns;           /* when it last asked for anything */
    u32 id;
    u32 zero;
};

/* Who asks a server: at a workload's veth, or at an ENI with the socket on this side of it. */
struct fallback_key {
    u64 cgroup;
    u32 dev;
    u32 vlan;
    u32 server[4];
};

struct fallback {
    u64 queries;            /* those that were followed */
    u64 fallbacks;          /* of these: the same was asked of another server, after a while */
    u64 waited_ns;          /* until then, in sum */
};

/* A query that is followed, under the hash of who asks and what for. */
struct followed {
    u64 at_ns;
    u32 server[4];
    u16 id;                 /* as on the wire */
    u16 others;             /* other lookups of the name went to another server meanwhile */
    u32 zero;
};

struct last_followed {
    u64 at_ns;
    u64 server;             /* its hash; 0: nobody's place yet */
    u64 several_ns;         /* when it was another server than the one before */
};

BPF_ARRAY(settings, struct settings, 1);
BPF_ARRAY(stats, u64, STATS);
BPF_QUEUE(free_tags, u32, ORIGIN_IDS);
BPF_HASH(origins, struct origin_key, struct origin, MAX_ORIGINS);
BPF_HASH(veths, u32, u32, MAX_VETHS);
BPF_HASH(senders, struct sender_key, u64, MAX_SENDERS);
BPF_TABLE("lru_hash", struct source_key, u64, sources, MAX_SOURCES);
BPF_HASH(enis, struct eni_key, struct eni, MAX_ENIS);
BPF_ARRAY(limits, struct limit, MAX_ENIS);
BPF_RINGBUF_OUTPUT(crossings, CROSSINGS_PAGES);
BPF_ARRAY(new_eni, struct eni, 1);      /* always zero: too large for a program's stack */
BPF_HASH(trunks, u32, u32, MAX_TRUNKS);
BPF_ARRAY(queries, struct query_set, QUERY_SETS);
BPF_F_TABLE("array", u32, struct cached_set, cached, CACHED_SETS, MMAPABLE);
BPF_TABLE("lru_hash", u64, struct ask, asks, MAX_ASKS);
BPF_ARRAY(last_ask, u64, 1);            /* when anybody last asked: spares everybody else the hash */
BPF_PERCPU_ARRAY(aliases, struct alias, 1);     /* too large for a program's stack */
BPF_HASH(asked, struct asked_key, struct asked, MAX_ASKED);
BPF_RINGBUF_OUTPUT(told_names, TOLD_NAMES_PAGES);
BPF_ARRAY(serving, u64, SERVING_TAGS);  /* by origin tag: when it last answered somebody */
BPF_HASH(remotes, struct remote_key, struct remote, REMOTE_IDS);
BPF_QUEUE(free_remotes, u32, REMOTE_IDS);
BPF_TABLE("lru_hash", u64, struct followed, followed, MAX_FOLLOWED);
BPF_ARRAY(last_followed, struct last_followed, SERVING_TAGS);   /* by origin tag */
BPF_TABLE("lru_hash", struct fallback_key, struct fallback, fallbacks, MAX_FALLBACKS);
BPF_PROG_ARRAY(of_an_eni, TASK_WAYS);           /* eni_egress and eni_ingress */
BPF_PERCPU_ARRAY(task_devs, u32, TASK_WAYS);    /* of the packet that is being handed over; 0: none */

static __always_inline void note(u32 which)
{
    u64 *count = stats.lookup(&which);

    if (count)
        __sync_fetch_and_add(count, 1);
}

static __always_inline struct settings *get_settings(void)
{
    u32 zero = 0;

    return settings.lookup(&zero);
}

#endif
