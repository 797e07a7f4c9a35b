// Package events tests, on a real guest, that what the kernel tells of it
// reaches the agent in its shadow, and measures how soon and at what cost:
// make bench-events.
package events
