package history

import "github.com/gnomon-vm/gnomon"

// Description is what one metric of the schema means.
type Description struct {
	Metric string
	Help   string
	Unit   string
}

var vmHelp = []struct {
	q    Quantity
	help string
}{
	{Usage, "What the VM got"},
	{Demand, "What the VM would have taken had nothing limited it"},
	{Allocation, "The VM's limit as observed; absent where none is set"},
	{Reservation, "What is set aside for the VM"},
	{Forecast, "The VM's largest demand within the horizon, by quantile"},
	{Request, "The total that the VM's shadow asked to have ready"},
	{Starved, "Time of the last interval in which the VM wanted more than it got"},
}

var hostHelp = []struct {
	q    Quantity
	help string
}{
	{Capacity, "What the host may promise to its VMs"},
	{Allocated, "The sum of the host's allocations"},
	{Reserved, "The sum of the host's reservations"},
	{Free, "What of the host's capacity is neither allocated nor reserved"},
}

// Catalog returns every metric of the schema, in a fixed order.
func Catalog() []Description {
	var all []Description
	for r := range gnomon.AllResources() {
		for _, h := range vmHelp {
			unit := units[r].suffix
			if h.q == Starved {
				unit = "seconds"
			}
			all = append(all, Description{Metric(r, h.q), h.help + " (" + r.String() + ").", unit})
		}
	}
	for r := range gnomon.AllResources() {
		for _, h := range hostHelp {
			all = append(all, Description{HostMetric(r, h.q), h.help + " (" + r.String() + ").", units[r].suffix})
		}
	}
	return append(all, Description{Decisions,
		"The amount of a decision of the host's broker, at its time, in cores, bytes or bytes/s; for waste, in those times seconds.", ""})
}
