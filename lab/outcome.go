package lab

// Outcome is what came of one VM's resource under one policy at one setting of
// its knob.
type Outcome struct {
	Dataset, VM string
	Resource    string // cpu, memory, disk or network
	Policy      string
	Knob        float64 // the policy's setting

	Seconds   float64 // counted time
	Violation float64 // seconds in which demand exceeded the allocation
	Unmet     float64 // demand not served when it came: core-seconds, byte-seconds or bytes

	Demand, Allocation float64 // means over time, in cores, bytes or bytes/s
	Slack              float64 // mean of max(0, allocation - demand) over that of the allocation, 0..1
	DelayP99           float64 // seconds that work waits in its queue, 99th percentile; 0 for memory

	Resizes, Kills int

	// Of the product only: increases of demand that a reservation served or did
	// not, the median of the seconds from ready to needed, and unit-seconds that
	// were reserved and not used.
	Hits, Misses   int
	LeadP50, Waste float64
}
