/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Sizes and settings that both sides need. The agent reads the #defines of this file
 * (agent/kernel/layout.py), so each is a plain number on one line.
 */
#ifndef ENI53_SETTINGS_H
#define ENI53_SETTINGS_H

#define SLOT_NS 100000000       /* length of a window slot: 100 ms */
#define SLOTS 64                /* slots in an ENI's ring: 6.4 s for a late reader */
#define ORIGIN_IDS 8191         /* origin tags in circulation; a tag is 16 bits, 0 means none */
#define MAX_ORIGINS 16384       /* veth and cgroup pairs remembered */
#define MAX_SENDERS 16384       /* rows of the count at the ENIs */
#define MAX_SOURCES 4096        /* source addresses of forwarded packets nobody owns */
#define MAX_ENIS 256            /* ENIs, branch ENIs included */
#define LEVELS 3                /* thresholds of an ENI: warning, critical, exceeded */
#define WINDOW_SLOTS 10         /* slots of the sliding one-second window */
#define CROSSINGS_PAGES 4       /* room for what wakes the agent */
#define MAX_VETHS 4096          /* host-side veths that our program is attached to */
#define LOOPBACK 1              /* index of lo, in every network namespace */
#define MAX_TRUNKS 32           /* ENIs whose VLANs are branch ENIs */
#define MAX_ASKS 8192           /* names lately asked for by who may be behind a cache */
#define REMOTE_IDS 2047         /* such clients told apart; an id of theirs has the top bit set */
#define SERVING_TAGS 8192       /* ORIGIN_IDS, and the tag 0 */
#define MAX_FOLLOWED 8192       /* queries followed, for whether another server is asked the same */
#define MAX_FALLBACKS 4096      /* servers other than the resolver, each by who asks it */
#define TASK_DEV 2147483648     /* top bit of the key of an ENI in a task's namespace; the rest is its class id */
#define MAX_ASKED 4096          /* names counted, each by who asked for it */
#define NAME_BYTES 256          /* of a question, as told to the agent: a name has at most 255 */
#define LABEL_BYTES 63          /* of a name's part between two dots */
#define TOLD_NAMES_PAGES 16     /* room for names that the agent has yet to read */
#define MAX_RESOLVERS 8         /* resolver addresses of each family */
#define QUERY_SETS 16384        /* of queries waiting for an answer, by hash; a power of two */
#define QUERY_WAYS 4            /* queries in a set; a power of two */
#define CACHED_SETS 4096        /* of questions that a cache would know, by hash; a power of two */
#define CACHED_WAYS 4           /* questions in a set; a power of two */
#define ANSWER_STEPS 48         /* labels and records of an answer that are looked at for its TTL */
#define UNANSWERED_NS 2000000000 /* an answer after this long is none: 2 s */
#define SPAN_NS 1100000000      /* queries are told unanswered by spans of 1.1 s ... */
#define SPANS 4                 /* ... in so many places: SPANS - 2 spans outlast UNANSWERED_NS */
#define LATENCY_BUCKETS 13      /* bounds of answers.h, and one for what is slower */

/* What the agent tells the programs; map settings, index 0. */
struct settings {
    u32 resolvers4;                     /* how many of resolver4 are in use */
    u32 resolvers6;
    u32 resolver4[MAX_RESOLVERS];       /* as on the wire */
    u32 resolver6[MAX_RESOLVERS * 4];   /* as on the wire, four words an address */
    u32 write_tags;                     /* 0: leave tc_index alone (another dataplane uses it) */
    u32 names;                          /* 0: do not count what names are asked for */
};

#endif
