package shadow

import (
	"context"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

const (
	// rehearsedPast and rehearsedEvents are as many samples as every kind of model
	// wants to have seen.
	rehearsedPast   = 300
	rehearsedEvents = 70
)

// rehearse has the agent of a template do once what each clone's will do: follow a
// VM, learn from its past, forecast. The guest's kernel has then mapped what that
// takes and the program has made its tables, which every clone would else do
// again. The agent forgets that VM when it is told of another.
func rehearse(ctx context.Context, l *Link) error {
	p := config.Defaults()
	welcome := &agentpb.Welcome{Vm: "rehearsal", NowUnixNano: time.Now().UnixNano(), KeepsState: true,
		Settings: SettingsOf(p)}
	l.Welcome(welcome)
	at := time.Unix(0, welcome.GetNowUnixNano())
	answer := func(m *agentpb.ToHost) {
		if r := m.GetStateRequest(); r != nil {
			l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_State{State: &agentpb.State{Id: r.GetId()}}})
		}
		if r := m.GetHistory(); r != nil {
			past := make([]float64, rehearsedPast)
			for i := range past {
				past[i] = rehearsedDemand(i)
			}
			l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_History{History: &agentpb.History{
				Id: r.GetId(), Resource: r.GetResource(), StepNs: r.GetStepNs(), Demand: past,
			}}})
		}
	}
	// Its first event comes before its past, as in life.
	for i := range rehearsedEvents {
		v := int64(rehearsedDemand(rehearsedPast + i))
		used := gnomon.Resources{v, v, v, v}
		l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Usage{Usage: wire.UsageTo(wire.Usage{
			Seq: uint64(i + 1), Ceiling: gnomon.Resources{5000, 5000, 5000, 5000},
			Sample: gnomon.Sample{
				At: at.Add(time.Duration(i) * p.MonitoringInterval), Interval: p.MonitoringInterval,
				Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network),
				Usage: used, Demand: used, Allocation: gnomon.Resources{2000, 2000, 2000, 2000},
			},
		})}})
		if err := answered(ctx, l, answer); err != nil {
			return err
		}
	}
	l.Welcome(&agentpb.Welcome{NowUnixNano: welcome.GetNowUnixNano(), Settings: welcome.GetSettings()})
	return answered(ctx, l, answer)
}

// rehearsedDemand has a season of twelve samples and more.
func rehearsedDemand(i int) float64 {
	v := 1000.0
	if i%12 < 4 {
		v = 3000
	}
	return v + float64(i*i%97)
}
