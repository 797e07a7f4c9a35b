//go:generate go test . -run TestMarkdown -update

// Package config is the schema of gnomon's parameters: their names, defaults,
// bounds and scopes, and how layers of them combine. It is pure.
package config

import (
	"time"

	"github.com/gnomon-vm/gnomon"
)

// ScalingPolicy is how a shadow VM's own size follows its VM's forecast peak.
type ScalingPolicy string

// The scaling policies.
const (
	Fixed        ScalingPolicy = "fixed"        // stays at its base
	Proportional ScalingPolicy = "proportional" // base to max by forecast peak over the VM's ceiling
	Step         ScalingPolicy = "step"         // base, or max above half the ceiling, with hysteresis
)

// Runtime is what a shadow's agent runs in.
type Runtime string

// The runtimes.
const (
	RuntimeVM      Runtime = "vm"      // a virtual machine of its own
	RuntimeProcess Runtime = "process" // a sandboxed process of the host
)

// OnTermination is what becomes of a shadow when its VM ends.
type OnTermination string

// What can become of it.
const (
	Suspend   OnTermination = "suspend"
	Terminate OnTermination = "terminate"
)

// Release is what lets an allocation go below what demand of late was.
type Release string

// What can.
const (
	ByForecast Release = "forecast" // a forecast, as long as it proves right
	ByHold     Release = "hold"     // hold alone
)

// OnOverride is what becomes of a limit that somebody else changed.
type OnOverride string

// What can become of it.
const (
	Revert OnOverride = "revert"
	Adopt  OnOverride = "adopt"
)

// OnExit is what a clean stop of the host daemon does with the limits it set.
type OnExit string

// What can be done.
const (
	Restore OnExit = "restore"
	Keep    OnExit = "keep"
)

// Size is a shadow VM's CPU and memory.
type Size struct {
	CPU    int64 // millicores
	Memory int64 // bytes
}

// MinShortagePrice and MaxShortagePrice bound Parameters.ShortagePrice.
const MinShortagePrice, MaxShortagePrice = 0.01, 1e7

// Parameters are the effective parameters of one VM. The key of each in files
// and on the command line is given with it.
type Parameters struct {
	ShadowEnabled          bool             // shadow.enabled
	ShadowBase             Size             // shadow.baseResources, as cpu=100m,memory=96MiB
	ShadowMax              Size             // shadow.maxResources
	ShadowRuntime          Runtime          // shadow.runtime
	PredictionHorizon      time.Duration    // predictionHorizon, at least MonitoringInterval
	PreAllocationThreshold gnomon.Resources // preAllocationThreshold, as cpu=50m,memory=16MiB,disk=1MB/s,network=1MB/s
	ScalingPolicy          ScalingPolicy    // scalingPolicy
	MonitoringInterval     time.Duration    // monitoringInterval, 100 ms to 1 h
	HistoryRetentionPeriod time.Duration    // historyRetentionPeriod, 1 h to 10 years
	OnTermination          OnTermination    // onTermination
	OnExit                 OnExit           // onExit; host
	OnOverride             OnOverride       // onOverride

	ForecastModel  string        // forecast.model: auto or a model's name
	ForecastSeason time.Duration // forecast.season, 0 to find it
	ShortagePrice  float64       // shortagePrice: of a second of shortage, in seconds of the mean allocation
	Release        Release       // release

	Floor   gnomon.Resources // limits.floor; 0 is the default of that resource
	Ceiling gnomon.Resources // limits.ceiling; 0 is the VM's own maximum

	Hotplug       bool  // cpu.hotplug
	OperationSize int64 // disk.operationSize: bytes that an operation counts as at least; 0 for none

	Quota    gnomon.Resources // quota; account, host; 0 for none of that resource
	Priority int64            // priority, 0 to 100

	HeadroomPercent int64         // headroom: what the standard path allocates above demand
	Hold            time.Duration // hold: how long demand must stay low before a shrink

	OvercommitPercent gnomon.Resources // overcommit; host: percent of the machine that may be promised
	Capacity          gnomon.Resources // capacity; host: what the host may promise where the machine does not tell (disk, network), or less than it has
}
