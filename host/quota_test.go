package host

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// What the configuration says of an account and of a VM is in force at once, and
// told; a request beyond the quota is told why it gets no more.
func TestQuotaAndPriorityComeFromTheConfiguration(t *testing.T) {
	const quota, level = 1_000_000, 15_000_000
	r := newRig(t)
	r.configure(map[string]string{"quota": "disk=1MB/s", "priority": "80"})
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the limit of the disk was lowered", func() bool {
		st, ok := r.daemon.broker.View(id)
		return ok && st.Resources[gnomon.Disk] != nil && st.Resources[gnomon.Disk].Allocated < level-2*quota
	})
	request := func() *hostpb.RequestPreallocationResponse {
		t.Helper()
		res, err := r.api.RequestPreallocation(t.Context(), connect.NewRequest(&hostpb.RequestPreallocationRequest{
			Vm: string(id), Resource: "disk", Level: level, NeedInNs: int64(time.Second), LifetimeNs: int64(time.Minute)}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	if got := request(); got.GetVerdict() == string(gnomon.Granted) || !strings.Contains(got.GetReason(), "the quota of account acme allows no more") {
		t.Errorf("beyond the quota: %v", got)
	}
	status := func() []*hostpb.Quota {
		t.Helper()
		res, err := r.api.Status(t.Context(), connect.NewRequest(&hostpb.StatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetQuotas()
	}
	if got := status(); len(got) != 1 || got[0].GetAccount() != "acme" || got[0].GetQuota().GetDiskBytesPerSecond() != quota ||
		got[0].GetAhead().GetDiskBytesPerSecond() > quota || got[0].GetQuota().GetCpuMillicores() != 0 {
		t.Errorf("quotas are told as %v", got)
	}
	res, err := r.api.ExplainVM(t.Context(), connect.NewRequest(&hostpb.ExplainVMRequest{Vm: string(id)}))
	if err != nil || !strings.Contains(strings.Join(res.Msg.GetSummary(), "\n"), "all that the quota of 1 MB/s allows") {
		t.Errorf("the explanation does not tell of the quota: %v, %v", res, err)
	}
	vms, err := r.api.ListVMs(t.Context(), connect.NewRequest(&hostpb.ListVMsRequest{}))
	if err != nil || len(vms.Msg.GetVms()) != 1 || vms.Msg.GetVms()[0].GetPriority() != 80 {
		t.Errorf("VMs are told as %v, %v", vms, err)
	}

	r.configure(nil)
	if got := request(); got.GetVerdict() != string(gnomon.Granted) {
		t.Errorf("without a quota: %v", got)
	}
	if got := status(); len(got) != 0 {
		t.Errorf("quotas are told as %v where there is none", got)
	}

	r.configure(map[string]string{"quota": "disk=1MB/s"})
	if err := r.sim.RemoveVM(id); err != nil {
		t.Fatal(err)
	}
	r.eventually("the quota of an account without VMs is forgotten", func() bool { return len(r.daemon.quotas) == 0 })
}
