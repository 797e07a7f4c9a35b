// Package pressure tells at once when a VM begins to be short of something, from
// what the host's kernel sees of it: its vCPUs' threads, its process, its
// interfaces. There are three sources, of which Open takes the first that this
// host allows: programs in the kernel (eBPF), counters that interrupt while a
// vCPU runs (perf), and looking every so often (sampling).
//
// A source only tells of onsets and counts. How much a VM is short of, and what
// is done about it, is for those who are told: see docs/pressure.md for each
// signal and what it cannot see.
package pressure
