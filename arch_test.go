package gnomon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gnomon-vm/gnomon"

// A rule says what the packages in a folder may import of the project, and why
// no more. Folders are below the module's root; "core/..." is core and all
// folders below it. Tests may import anything.
type rule struct {
	folder string
	may    []string
	reason string
}

// The table of imports. A package matches the longest folder that holds it;
// every package has to match one.
var rules = []rule{
	{".", nil,
		"the vocabulary is what everything else speaks in: it depends on nothing"},
	{"config/...", []string{"."},
		"the parameters' schema is pure; who stores or watches them is not its matter"},

	{"core/demand", []string{"."},
		"samples follow from counters alone, whoever read them and whoever will use them"},
	{"core/pack", nil,
		"how numbers are kept depends on nothing of what they mean"},
	{"core/forecast", []string{".", "core/pack"},
		"a model sees numbers only, so that it runs in the agent and in the laboratory alike"},
	{"core/plan", []string{".", "config", "core/forecast", "core/pack"},
		"a plan follows from forecast and parameters alone"},
	{"core/placement", []string{"."},
		"where a VM is to be follows from numbers of hosts and VMs, wherever they come from"},
	{"core/ledger", []string{"."},
		"the book's promises must hold whoever writes in it"},
	{"core/broker", []string{".", "core/ledger"},
		"the arbiter is one fold over events: it must replay from a recording without a forecaster"},

	{"domainxml", []string{"."},
		"a definition is read the same by the server, which runs no VM, and by the driver"},
	{"hypervisor/...", []string{".", "domainxml", "hypervisor/..."},
		"a driver reads and limits VMs; it decides nothing and knows no daemon"},

	{"pressure", []string{"."},
		"what the kernel sees of a VM is told without knowing who listens, or which hypervisor runs it"},

	{"wire", []string{".", "wire/agentpb"},
		"the wire is the seam between programs: it carries the vocabulary and nothing of either side"},
	{"wire/recording", []string{"."},
		"a recording outlives the code that wrote it"},
	{"wire/...", []string{"wire/hostpb", "wire/serverpb"},
		"generated code knows the messages and nothing else"},

	{"appliance/...", nil,
		"a bootable guest is built around any program"},
	{"agent/...", []string{".", "config", "core/forecast", "core/plan", "wire/...", "appliance/guestinit"},
		"the agent runs in a small guest and shares only messages with the host"},
	{"shadow", []string{".", "config", "hypervisor", "wire/...", "appliance", "shadow/cell", "shadow/qmp"},
		"shadow VMs are started and spoken to; what they propose is judged elsewhere"},
	{"shadow/...", nil,
		"a cell holds any process, and QEMU is spoken to for any reason"},
	{"history/figure", []string{".", "history", "chart"},
		"a figure is drawn from what the history says"},
	{"history/...", []string{".", "history"},
		"the history is reached by the Prometheus API alone, so that any engine can take its place"},
	{"trace", nil,
		"files of numbers are read alike for forecasts and the laboratory, whatever they are of"},
	{"backtest", []string{"core/..."},
		"forecasts are judged by what they were and what came, wherever the series is from"},
	{"core/accuracy", nil,
		"a measure is a function of forecasts and outcomes"},
	{"chart/...", []string{"."},
		"a plot is drawn from numbers, wherever they come from"},

	{"fleet", []string{".", "config", "wire/serverpb"},
		"a file is compared with what the API tells; carrying the difference out is the caller's"},

	{"server/trust", nil,
		"keys, certificates and tokens are the same whoever shows them"},
	{"server/people/...", []string{"server/access"},
		"who somebody is follows from a token and its provider's keys"},
	{"server/access", []string{"wire/..."},
		"who may call what follows from the caller and the method alone"},
	{"server/hostlink", []string{"wire/...", "server/trust"},
		"hosts keep the link without carrying the server's engine"},
	{"server/...", []string{".", "config", "core/placement", "domainxml", "wire/...", "server/..."},
		"the server knows configuration, associations and definitions, never a hypervisor"},
	{"host/...", []string{".", "config", "core/...", "hypervisor/...", "pressure", "shadow", "wire/...", "history", "server/hostlink"},
		"the daemon carries decisions out; the server and the engines are behind their protocols"},

	{"demo/workload", []string{"."},
		"the workload is a function of a seed, in the guest and outside alike"},
	{"demo", []string{".", "demo/workload", "appliance", "chart", "history/...", "shadow", "wire/..."},
		"the demonstration is a client: it measures gnomon from outside, through its public APIs, and clears up after one that was killed"},

	{"lab", []string{".", "config", "trace", "core/...", "hypervisor/simulated"},
		"the laboratory drives the product's own decisions; a second implementation would prove nothing"},

	{"lab/report", []string{"lab"},
		"a report is made of outcomes, whatever played the policies"},

	{"cmd/gnomon-agent", []string{"agent/...", "wire", "appliance/guestinit"},
		"the shadow's init has to stay small"},
	{"cmd/gnomon-load", []string{".", "appliance/guestinit", "demo/workload"},
		"the demo guest's init has to stay small"},
	{"test/...", []string{"..."},
		"tests of the whole start the real programs, and look from anywhere"},
	{"test/scale", []string{"wire/..."},
		"the server's cost is measured from outside, over the protocol that hosts speak"},
	{"test/vm", nil,
		"the system is tested from outside, as its users see it"},

	{"cmd/...", []string{"..."},
		"only the programs wire"},
}

// small are programs that run in guests of a few dozen MiB, and what must not
// get into them.
var small = map[string][]string{
	"cmd/gnomon-agent": heavy,
	"cmd/gnomon-load":  heavy,
}

var heavy = []string{
	"go.etcd.io/", "github.com/prometheus/", "connectrpc.com/", "google.golang.org/grpc",
	"github.com/spf13/cobra", "github.com/digitalocean/", "libvirt.org/", "net/http", "gonum.org/v1/plot",
}

// impure are standard packages that no package below core may import, and why.
var impure = map[string]string{
	"os": "files", "net": "the network", "syscall": "the system", "io/ioutil": "files", "embed": "files",
	"log": "a log", "context": "cancellation, which depends on the clock", "unsafe": "anything",
	"crypto/rand": "randomness that no seed repeats", "sync": "what others left behind", "runtime": "the machine", "reflect": "what the compiler cannot check",
}

// clock are functions of package time that read the clock or wait for it.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

type listed struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
	GoFiles    []string
}

// folder returns where the package is below the module's root.
func (p listed) folder() string { return folder(p.ImportPath) }

func folder(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

// packages lists what the go command finds.
func packages(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Imports,GoFiles"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// matches reports whether a folder is what a pattern names.
func matches(pattern, folder string) bool {
	prefix, all := strings.CutSuffix(pattern, "...")
	if !all {
		return pattern == folder
	}
	return prefix == "" || folder == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(folder, prefix)
}

// ruleOf returns the rule for a folder: an exact one, else the longest.
func ruleOf(folder string) (rule, bool) {
	var best rule
	for _, r := range rules {
		if r.folder == folder {
			return r, true
		}
		if matches(r.folder, folder) && len(r.folder) > len(best.folder) {
			best = r
		}
	}
	return best, best.folder != ""
}

// violations returns what a package imports of the project and may not.
func violations(p listed) []string {
	r, ok := ruleOf(p.folder())
	if !ok {
		return []string{p.folder() + ": no row of the table of imports covers it; add one, with its reason"}
	}
	var out []string
	for _, imported := range p.Imports {
		if !ours(imported) {
			continue
		}
		to := folder(imported)
		if !slices.ContainsFunc(r.may, func(pattern string) bool { return matches(pattern, to) }) {
			out = append(out, p.folder()+" imports "+to+", but may import only "+strings.Join(r.may, ", ")+": "+r.reason)
		}
	}
	return out
}

func TestImports(t *testing.T) {
	for _, p := range packages(t, "./...") {
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
}

// The table is worth something only if it can say no.
func TestImportsCanFail(t *testing.T) {
	for _, p := range []listed{
		{ImportPath: module + "/core/broker", Imports: []string{module + "/core/forecast"}},
		{ImportPath: module, Imports: []string{module + "/config"}},
		{ImportPath: module + "/host", Imports: []string{module + "/server"}},
		{ImportPath: module + "/cmd/gnomon-agent", Imports: []string{module + "/host"}},
		{ImportPath: module + "/nowhere"},
	} {
		if len(violations(p)) == 0 {
			t.Errorf("%s importing %v is not refused", p.folder(), p.Imports)
		}
	}
	if v := violations(listed{ImportPath: module + "/cmd/gnomon", Imports: []string{module + "/host"}}); len(v) > 0 {
		t.Errorf("cmd/gnomon may import everything, but: %v", v)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t, "./...") {
		if strings.HasPrefix(p.folder(), "wire/") && strings.Contains(p.folder(), "pb") {
			continue // generated
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.folder())
		}
	}
}

func TestCoreIsPure(t *testing.T) {
	for _, p := range packages(t, "./core/...") {
		for _, imported := range p.Imports {
			root, _, _ := strings.Cut(imported, "/")
			for _, name := range []string{imported, root} {
				if why, ok := impure[name]; ok {
					t.Errorf("%s imports %s: decisions must not depend on %s", p.folder(), imported, why)
					break
				}
			}
			if strings.Contains(root, ".") && !ours(imported) && !strings.HasPrefix(imported, "gonum.org/v1/gonum") {
				t.Errorf("%s imports %s: core depends on the standard library and gonum alone", p.folder(), imported)
			}
		}
		for _, name := range p.GoFiles {
			checkPure(t, filepath.Join(p.Dir, name), p.folder()+"/"+name)
		}
	}
}

// checkPure fails where a file starts a goroutine, reads the clock or draws
// from the global source of randomness.
func checkPure(t *testing.T, path, name string) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range impurities(t, src) {
		t.Errorf("%s: %s; time is a field of the event, and decisions must replay", name, what)
	}
}

func impurities(t *testing.T, src []byte) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			out = append(out, "it starts a goroutine")
		case *ast.SelectStmt, *ast.ChanType:
			out = append(out, "it uses channels")
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			switch {
			case !ok:
			case pkg.Name == "time" && slices.Contains(clock, n.Sel.Name):
				out = append(out, "it calls time."+n.Sel.Name)
			case pkg.Name == "rand" && !slices.Contains([]string{"New", "NewPCG", "NewChaCha8", "Rand", "Source", "PCG"}, n.Sel.Name):
				out = append(out, "it calls rand."+n.Sel.Name)
			}
		}
		return true
	})
	return out
}

func TestImpuritiesAreFound(t *testing.T) {
	for _, body := range []string{"go f()", "_ = time.Now()", "_ = rand.Float64()", "select {}", "var c chan int; _ = c"} {
		if found := impurities(t, []byte("package p\nfunc f() { "+body+" }")); len(found) != 1 {
			t.Errorf("%q: found %v, want one impurity", body, found)
		}
	}
	if found := impurities(t, []byte("package p\nfunc f() { _ = time.Second; _ = rand.New(nil) }")); len(found) > 0 {
		t.Errorf("pure code is refused: %v", found)
	}
}

func TestGuestProgramsStaySmall(t *testing.T) {
	for program, banned := range small {
		for _, p := range packages(t, "-deps", "./"+program) {
			for _, b := range banned {
				if strings.HasPrefix(p.ImportPath, b) {
					t.Errorf("%s links %s: it runs in a guest of a few dozen MiB", program, p.ImportPath)
				}
			}
		}
	}
}

// The page that describes the folders has to know all of them.
func TestArchitectureNamesEveryFolder(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range packages(t, "./...") {
		top, _, _ := strings.Cut(p.folder(), "/")
		if top != "." && !seen[top] && !strings.Contains(string(page), "`"+top+"/") {
			t.Errorf("ARCHITECTURE.md does not name %s/", top)
		}
		seen[top] = true
	}
}
