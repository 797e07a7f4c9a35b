// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What pressure.c reads of the kernel's structures. Only the names matter: the
// loader finds the offsets in the running kernel's own type information.
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_RINGBUF 27

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_info {
	unsigned long long run_delay;
};

struct cfs_rq {
	int throttle_count;
};

struct sched_entity {
	__u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq;
};

struct task_struct {
	unsigned int __state;
	struct sched_entity se;
	struct sched_info sched_info;
	int pid;
	int tgid;
	unsigned long min_flt, maj_flt;
};

// Since 6.18 a task is taken off the queue by itself when its group's quota is
// used up.
struct task_struct___throttled {
	bool throttled;
};

struct bvec_iter {
	unsigned int bi_size;
};

struct bio {
	struct bvec_iter bi_iter;
};

struct net_device {
	int ifindex;
};

struct sk_buff {
	struct net_device *dev;
	unsigned int len;
};

#pragma clang attribute pop
