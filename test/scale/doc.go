// Command scale measures how the management server's cost grows with the fleet:
// a real server in a process of its own, with embedded etcd, and simulated
// hosts that speak the real protocol to it, each over a connection of its own.
// `make bench-fleet` runs it; docs/scale.md tells what it found.
package main
