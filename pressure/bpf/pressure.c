// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Follows what the host's kernel does with the threads and devices of VMs, and
// tells the daemon at once when one begins to be short of something. It only
// counts and compares; what follows from it is decided elsewhere.
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define MS 1000000ULL

// A thread's recent past is what happened since its older mark: one to two
// windows ago, or since it woke from a longer sleep.
#define WINDOW (20 * MS)

// queued_least and queued_part: a thread that waited for a CPU for that long,
// and for that part of its recent past, is held up.
#define QUEUED_LEAST (5 * MS)
#define QUEUED_PART 4

// GAP is the least time between two onsets of a VM and a resource.
#define GAP (50 * MS)

// major_many faults in a window that had to wait for a disk hold a VM up.
#define MAJOR_MANY 16

enum resource { CPU, MEMORY, DISK, NETWORK, RESOURCES }; // as in package gnomon

enum cause { THROTTLED = 1, QUEUED, FAULTS, MAJOR_FAULTS, RECLAIM, RATE };

enum state { ASLEEP, RUNNING, WAITING };

struct mark {
	__u64 at, run, wait;
};

// thread is a vCPU's. run and wait are the scheduler's own sums when its state
// began, at.
struct thread {
	__u64 run, wait, at;
	__u32 state, vm;
	struct mark older, newer;
	__u64 minor, major;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); // thread
	__type(value, struct thread);
} threads SEC(".maps");

struct vm {
	__u64 last[RESOURCES]; // when an onset was last told
	__u64 faults;	       // pages that its vCPUs faulted in
	__u64 major_at, majors; // major faults of the window that began then
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct vm);
} vms SEC(".maps");

// A line is how many faults of a VM mean that its memory may be short; 0 for
// none. The daemon draws it, and it is told once that it was crossed.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} lines SEC(".maps");

// bucket empties at its rate, as a limiter's does, whatever is poured in. What
// it holds beyond room, the limiter holds back.
struct bucket {
	__u32 vm, resource;
	__u64 rate; // bytes per second; 0 for no limit
	__u64 room;
	__u64 level, at;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32); // process
	__type(value, struct bucket);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); // interface
	__type(value, struct bucket);
} devices SEC(".maps");

// onset is what the daemon is told. The window is that of the thread, if it is
// one's.
struct onset {
	__u64 at, interval, run, wait;
	__u32 vm, resource, cause, thread;
};
const struct onset *unused_onset __attribute__((unused)); // for bpf2go

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} onsets SEC(".maps");

static __always_inline void tell(__u32 slot, __u32 r, enum cause cause, __u64 now,
				 struct thread *t, __u32 tid)
{
	struct vm *vm = bpf_map_lookup_elem(&vms, &slot);
	r &= RESOURCES - 1; // as the verifier wants it
	if (!vm || now - vm->last[r] < GAP)
		return;
	vm->last[r] = now;
	struct onset *o = bpf_ringbuf_reserve(&onsets, sizeof(*o), 0);
	if (!o)
		return; // the daemon is behind; it has enough to do
	__builtin_memset(o, 0, sizeof(*o));
	o->at = now;
	o->vm = slot;
	o->resource = r;
	o->cause = cause;
	if (t) {
		o->thread = tid;
		o->interval = now - t->older.at;
		o->run = t->run - t->older.run;
		o->wait = t->wait - t->older.wait;
	}
	bpf_ringbuf_submit(o, 0);
}

static __always_inline void rotate(struct thread *t, __u64 now)
{
	if (now - t->newer.at < WINDOW)
		return;
	t->older = t->newer;
	t->newer = (struct mark){.at = now, .run = t->run, .wait = t->wait};
	if (now - t->older.at > 4 * WINDOW)
		t->older = t->newer;
}

static __always_inline bool throttled(struct task_struct *p)
{
	if (p->se.cfs_rq->throttle_count > 0)
		return 1;
	struct task_struct___throttled *q = (void *)p;
	if (bpf_core_field_exists(q->throttled))
		return BPF_CORE_READ(q, throttled);
	return 0;
}

// faulted counts the pages a thread brought in since this was last asked.
static __always_inline void faulted(struct task_struct *p, struct thread *t, __u64 now)
{
	__u64 minor = p->min_flt - t->minor, major = p->maj_flt - t->major;
	if (!minor && !major)
		return;
	t->minor += minor;
	t->major += major;
	struct vm *vm = bpf_map_lookup_elem(&vms, &t->vm);
	if (!vm)
		return;
	__sync_fetch_and_add(&vm->faults, minor + major);
	__u64 *line = bpf_map_lookup_elem(&lines, &t->vm);
	if (line && *line && vm->faults >= *line) {
		*line = 0;
		tell(t->vm, MEMORY, FAULTS, now, 0, 0);
	}
	if (!major)
		return;
	if (now - vm->major_at > WINDOW) {
		vm->major_at = now;
		vm->majors = 0;
	}
	vm->majors += major;
	if (vm->majors >= MAJOR_MANY)
		tell(t->vm, MEMORY, MAJOR_FAULTS, now, 0, 0);
}

static __always_inline void left(struct task_struct *p, struct thread *t, bool preempted, __u64 now)
{
	t->run = p->se.sum_exec_runtime;
	t->wait = p->sched_info.run_delay;
	if (!t->at) { // it is seen for the first time
		t->older = t->newer = (struct mark){.at = now, .run = t->run, .wait = t->wait};
		t->minor = p->min_flt;
		t->major = p->maj_flt;
	}
	t->state = preempted || p->__state == 0 ? WAITING : ASLEEP;
	t->at = now;
	faulted(p, t, now);
	if (t->state == WAITING && throttled(p))
		tell(t->vm, CPU, THROTTLED, now, t, p->pid);
	rotate(t, now);
}

static __always_inline void arrived(struct task_struct *p, struct thread *t, __u64 now)
{
	if (!t->at)
		return;
	if (t->state == WAITING)
		t->wait += now - t->at;
	t->state = RUNNING;
	t->at = now;
	__u64 waited = t->wait - t->older.wait;
	if (waited >= QUEUED_LEAST && waited * QUEUED_PART >= now - t->older.at)
		tell(t->vm, CPU, QUEUED, now, t, p->pid);
	rotate(t, now);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempted, struct task_struct *prev, struct task_struct *next)
{
	__u32 tid = prev->pid;
	struct thread *t = bpf_map_lookup_elem(&threads, &tid);
	if (t)
		left(prev, t, preempted, bpf_ktime_get_ns());
	tid = next->pid;
	t = bpf_map_lookup_elem(&threads, &tid);
	if (t)
		arrived(next, t, bpf_ktime_get_ns());
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *p)
{
	__u32 tid = p->pid;
	struct thread *t = bpf_map_lookup_elem(&threads, &tid);
	if (!t || !t->at || t->state != ASLEEP)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (now - t->at >= WINDOW)
		t->older = t->newer = (struct mark){.at = now, .run = t->run, .wait = t->wait};
	t->state = WAITING;
	t->at = now;
	if (throttled(p))
		tell(t->vm, CPU, THROTTLED, now, t, tid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	__u32 tid = p->pid;
	if (bpf_map_lookup_elem(&threads, &tid))
		bpf_map_delete_elem(&threads, &tid);
	return 0;
}

static __always_inline void pour(struct bucket *b, __u64 bytes)
{
	if (!b || !b->rate)
		return;
	__u64 now = bpf_ktime_get_ns(), since = now - b->at;
	// Microseconds keep the product small: 2^40 B/s for a second is 2^60.
	__u64 emptied = since > 1000 * MS ? b->level : b->rate * (since / 1000) / 1000000;
	b->level = (b->level > emptied ? b->level - emptied : 0) + bytes;
	b->at = now;
	if (b->level > b->room)
		tell(b->vm, b->resource, RATE, now, 0, 0);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_bio, struct bio *bio)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;
	pour(bpf_map_lookup_elem(&processes, &process), bio->bi_iter.bi_size);
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_packet, struct sk_buff *skb)
{
	__u32 device = skb->dev->ifindex;
	pour(bpf_map_lookup_elem(&devices, &device), skb->len);
	return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int BPF_PROG(on_reclaim)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;
	struct bucket *b = bpf_map_lookup_elem(&processes, &process);
	if (b)
		tell(b->vm, MEMORY, RECLAIM, bpf_ktime_get_ns(), 0, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
