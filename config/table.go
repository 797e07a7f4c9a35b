package config

import (
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
)

var (
	everywhere = Scopes()
	onHosts    = []Scope{Global, Host}
)

// Models returns the values that forecast.model can take: auto, then the names
// of the models in core/forecast.
func Models() []string {
	return []string{"auto", "naive", "seasonal-naive", "sma", "ses", "holt", "holt-damped",
		"holt-winters", "holt-winters-mul", "theta", "arima", "multi-season", "analog"}
}

const day = 24 * time.Hour

// schema is the one place that says what parameters there are.
var schema = []Key{
	{
		Name: "shadow.enabled", Type: "boolean", Default: "true", Example: "false", Scopes: everywhere,
		Doc:   "Whether a VM has a shadow. Without one it is served by the standard path alone.",
		Range: "true or false",
		codec: boolean(func(p *Parameters) *bool { return &p.ShadowEnabled }),
	}, {
		Name: "shadow.baseResources", Type: "size", Default: "cpu=50m,memory=96MiB", Example: "cpu=100m,memory=112MiB", Scopes: everywhere,
		Doc:   "What a shadow VM is scaled down to and never falls below. Memory is what it may take of the host, all that runs it included; it never falls below what is in use. A shadow starts with shadow.maxResources, and comes down when its agent has said hello. It is at most shadow.maxResources.",
		Range: "cpu 10m to 16 cores, memory 80MiB to 16GiB",
		codec: size(func(p *Parameters) *Size { return &p.ShadowBase }),
	}, {
		Name: "shadow.maxResources", Type: "size", Default: "cpu=500m,memory=128MiB", Example: "cpu=1,memory=256MiB", Scopes: everywhere,
		Doc:   "What scalingPolicy may give a shadow VM at most.",
		Range: "cpu 10m to 16 cores, memory 80MiB to 16GiB",
		codec: size(func(p *Parameters) *Size { return &p.ShadowMax }),
	}, {
		Name: "shadow.runtime", Type: "choice", Default: string(RuntimeVM), Example: string(RuntimeProcess), Scopes: everywhere,
		Doc:   "What a shadow's agent runs in: a virtual machine of its own, or a sandboxed process of the host, which is cheaper and stands closer to the host's kernel. It is that of shadows started from then on.",
		Range: "vm or process",
		codec: choice(func(p *Parameters) *Runtime { return &p.ShadowRuntime }, RuntimeVM, RuntimeProcess),
	}, {
		Name: "predictionHorizon", Type: "duration", Default: "5s", Example: "10s", Scopes: everywhere,
		Doc:   "How far ahead demand is forecast. It is at least monitoringInterval and at most 1000 times as long.",
		Range: "100ms to 1h",
		codec: duration(100*time.Millisecond, time.Hour, func(p *Parameters) *time.Duration { return &p.PredictionHorizon }),
	}, {
		Name: "preAllocationThreshold", Type: "amounts", Default: "cpu=50m,memory=16MiB,disk=1MB/s,network=1MB/s",
		Example: "cpu=200m,memory=64MiB", Scopes: everywhere,
		Doc:   "How much the forecast must exceed what is in use before a pre-allocation is requested, for each resource. One that is left out keeps its default.",
		Range: "amounts, 0 or more",
		codec: amounts(false, func(p *Parameters) *gnomon.Resources { return &p.PreAllocationThreshold }),
	}, {
		Name: "scalingPolicy", Type: "choice", Default: string(Proportional), Example: string(Step), Scopes: everywhere,
		Doc:   "How a shadow VM's own size follows its VM's forecast peak: fixed stays at the base; proportional goes from base to maximum as the peak goes from nothing to the VM's ceiling; step is the base, or the maximum while the peak is above half the ceiling.",
		Range: "fixed, proportional or step",
		codec: choice(func(p *Parameters) *ScalingPolicy { return &p.ScalingPolicy }, Fixed, Proportional, Step),
	}, {
		Name: "monitoringInterval", Type: "duration", Default: "1s", Example: "500ms", Scopes: everywhere,
		Doc:   "How often a VM's usage is sampled and pushed to its shadow.",
		Range: "100ms to 1h",
		codec: duration(100*time.Millisecond, time.Hour, func(p *Parameters) *time.Duration { return &p.MonitoringInterval }),
	}, {
		Name: "historyRetentionPeriod", Type: "duration", Default: "15d", Example: "4w", Scopes: everywhere,
		Doc:   "How long usage and decisions are retained in the embedded time-series database, for each VM as its own setting, host or account says. An external database has retention settings of its own, and this has an effect there only with --history-sweep.",
		Range: "1h to 3650d",
		codec: duration(time.Hour, 3650*day, func(p *Parameters) *time.Duration { return &p.HistoryRetentionPeriod }),
	}, {
		Name: "onTermination", Type: "choice", Default: string(Terminate), Example: string(Suspend), Scopes: everywhere,
		Doc:   "What becomes of a shadow VM when its VM ends.",
		Range: "suspend or terminate",
		codec: choice(func(p *Parameters) *OnTermination { return &p.OnTermination }, Suspend, Terminate),
	}, {
		Name: "onExit", Type: "choice", Default: string(Restore), Example: string(Keep), Scopes: onHosts,
		Doc:   "What a clean stop of the host daemon does with the limits it set: restore those found when it took the VM in, or keep them.",
		Range: "restore or keep",
		codec: choice(func(p *Parameters) *OnExit { return &p.OnExit }, Restore, Keep),
	}, {
		Name: "onOverride", Type: "choice", Default: string(Revert), Example: string(Adopt), Scopes: everywhere,
		Doc:   "What becomes of a limit that somebody else changed on a VM that is taken in: revert has one that was lowered raised again at once, and one that was raised stay for the time of hold; adopt leaves it as it is, as the VM's own, and limits that resource no more until the VM is released, the host daemon stops or this is revert. Memory is always reverted, since a guest changes it by itself.",
		Range: "revert or adopt",
		codec: choice(func(p *Parameters) *OnOverride { return &p.OnOverride }, Revert, Adopt),
	}, {
		Name: "forecast.model", Type: "choice", Default: "auto", Example: "holt", Scopes: everywhere,
		Doc:   "The forecasting model; auto picks by recent error, per VM and resource.",
		Range: orList(Models()),
		codec: choice(func(p *Parameters) *string { return &p.ForecastModel }, Models()...),
	}, {
		Name: "shortagePrice", Type: "number", Default: "10", Example: "100", Scopes: everywhere,
		Doc:   "What a second of shortage costs, in seconds of the VM's mean allocation. A request is sized where more would cost more than the shortage it spares: a higher price means fewer shortages and more waste.",
		Range: fmt.Sprintf("%v to %.0f", MinShortagePrice, MaxShortagePrice),
		codec: number(MinShortagePrice, MaxShortagePrice, func(p *Parameters) *float64 { return &p.ShortagePrice }),
	}, {
		Name: "release", Type: "choice", Default: string(ByHold), Example: string(ByForecast), Scopes: everywhere,
		Doc:   "What lets the allocation of a VM with a shadow shrink: forecast, as soon as its forecast says that less is enough, and for as long as it proves right; hold, only when demand stayed low for the time of hold.",
		Range: "forecast or hold",
		codec: choice(func(p *Parameters) *Release { return &p.Release }, ByForecast, ByHold),
	}, {
		Name: "forecast.season", Type: "duration", Default: "0", Example: "1d", Scopes: everywhere,
		Doc:   "The length of the season of seasonal models, at least twice monitoringInterval; 0 to find it from the data.",
		Range: "0 to 30d",
		codec: duration(0, 30*day, func(p *Parameters) *time.Duration { return &p.ForecastSeason }),
	}, {
		Name: "limits.floor", Type: "amounts", Default: "", Example: "cpu=250m,memory=256MiB", Scopes: everywhere,
		Doc:   "What a VM's allocation never falls below, for each resource named. One that is left out has a floor from the VM's definition.",
		Range: "amounts, 0 or more; at most limits.ceiling",
		codec: amounts(true, func(p *Parameters) *gnomon.Resources { return &p.Floor }),
	}, {
		Name: "limits.ceiling", Type: "amounts", Default: "", Example: "cpu=4,memory=8GiB,disk=200MB/s,network=1Gbit/s", Scopes: everywhere,
		Doc:   "What a VM's allocation never rises above, for each resource named. One that is left out has the maximum of the VM's definition; for disk and network a definition has none, and they are watched but not limited.",
		Range: "amounts, 0 or more; at least limits.floor",
		codec: amounts(true, func(p *Parameters) *gnomon.Resources { return &p.Ceiling }),
	}, {
		Name: "cpu.hotplug", Type: "boolean", Default: "false", Example: "true", Scopes: everywhere,
		Doc:   "Whether a VM whose definition allows more vCPUs than it runs with is given them when its limit would exceed what those it has can do, and has them taken back when they were far from needed for 30 times hold. Its guest has to bring them online, and to let go of them; one that does not keeps what it has.",
		Range: "true or false",
		codec: boolean(func(p *Parameters) *bool { return &p.Hotplug }),
	}, {
		Name: "disk.operationSize", Type: "bytes", Default: "0", Example: "16KiB", Scopes: everywhere,
		Doc:   "What one operation of a disk counts as at least, of whatever size it is. So small operations are use of the disk as bytes are: they are forecast, reserved and handed over, and with a limit of 16MB/s and 16KiB a VM may do 1000 operations a second. 0 counts bytes alone and limits no operations.",
		Range: "0, or 512 to 1MiB",
		codec: bytes(512, 1<<20, func(p *Parameters) *int64 { return &p.OperationSize }),
	}, {
		Name: "quota", Type: "amounts", Default: "", Example: "cpu=8,memory=32GiB", Scopes: []Scope{Global, Account, Host},
		Doc:   "What an account's VMs may have ahead of demand on one host, all together, for each resource named: what is reserved for them, and what they were given for a forecast and did not demand so far. Demand is not under it. VMs of no account share one. One that is left out is not bounded.",
		Range: "amounts above 0",
		codec: aboveNothing(amounts(true, func(p *Parameters) *gnomon.Resources { return &p.Quota })),
	}, {
		Name: "priority", Type: "number", Default: "50", Example: "80", Scopes: []Scope{Global, Account, VM},
		Doc:   "Whose forecasts come first where they compete for a host: those of the VM with the higher priority are served first, and have what is ready for one with a lower; where the host runs short, the lower gives first. Demand waits for no priority.",
		Range: "0 to 100",
		codec: integer(0, 100, func(p *Parameters) *int64 { return &p.Priority }),
	}, {
		Name: "headroom", Type: "percent", Default: "20%", Example: "50%", Scopes: everywhere,
		Doc:   "What the standard path allocates above demand, in percent of the demand.",
		Range: "0% to 1000%",
		codec: percent(0, 1000, func(p *Parameters) *int64 { return &p.HeadroomPercent }),
	}, {
		Name: "hold", Type: "duration", Default: "10s", Example: "1m", Scopes: everywhere,
		Doc:   "How long demand must have stayed low before an allocation shrinks.",
		Range: "0 to 24h",
		codec: duration(0, day, func(p *Parameters) *time.Duration { return &p.Hold }),
	}, {
		Name: "overcommit", Type: "percents", Default: "cpu=100%,memory=100%,disk=100%,network=100%",
		Example: "cpu=200%", Scopes: onHosts,
		Doc:   "How much of a host's capacity may be promised to VMs, for each resource. One that is left out keeps its default.",
		Range: "1% to 1000% each",
		codec: percents(1, 1000, func(p *Parameters) *gnomon.Resources { return &p.OvercommitPercent }),
	}, {
		Name: "capacity", Type: "amounts", Default: "", Example: "disk=500MB/s,network=10Gbit/s", Scopes: onHosts,
		Doc:   "What a host has to promise, for each resource named: for disk and network, which the machine does not tell, or to promise less than it has.",
		Range: "amounts, 0 or more",
		codec: amounts(true, func(p *Parameters) *gnomon.Resources { return &p.Capacity }),
	},
}
