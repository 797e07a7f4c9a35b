# gnomon's build. `make help` lists the targets; `make demo` and `make test`
# do all their own set-up on a fresh Debian 12.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

MODULE   := github.com/gnomon-vm/gnomon
VERSION  ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)

# One set of flags for programs and tests, so that all share Go's cache: with
# all that gnomon embeds, a first build takes minutes. Static, since what runs
# in guests has to be, and the same wherever the checkout lies.
export CGO_ENABLED := 0
export GOFLAGS     := -buildvcs=false -trimpath
GO_BUILD := go build -ldflags "$(LDFLAGS)"

# The sources that decide whether a binary is out of date are Go's to know: its
# build cache makes a build without changes quick.
BINARIES := bin/gnomon bin/gnomon-agent bin/gnomon-load

# Seconds the demo runs; 0 is until Ctrl-C.
DEMO_SECONDS ?= 180
DEMO_FLAGS   ?=
BENCH_FLAGS  ?=
# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 20
# Shadows that bench-shadow starts.
SHADOWS ?= 50
# More for scripts/accuracy.py, such as --origins.
ACCURACY_FLAGS ?=

# Packages whose tests start real VMs. They run one after the other: they share
# one libvirt and two cores, and they measure time.
VM_TESTS = $(shell grep -rl --include='*_test.go' GNOMON_TEST_VM . | xargs -r -n1 dirname | sort -u)

# Packages with random tests. A result of `make test` follows from the tree
# alone, so there they draw from one seed; `make soak` draws ever new ones.
RANDOM_TESTS = $(shell grep -rl --include='*_test.go' pgregory.net/rapid . | xargs -r -n1 dirname | sort -u)
SEED         = -rapid.seed=1
# Cases that each random test of `make soak` draws.
SOAK_CHECKS ?= 5000

# Every package's tests but those given.
tests_but = $$(go list ./... | grep -vxF "$$(go list $(1) 2>/dev/null || echo -)")

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.PHONY: setup
setup: ## Install what is missing from Debian and start libvirt (as root)
	@scripts/setup.sh

.PHONY: build
build: $(BINARIES) ## Build bin/gnomon, bin/gnomon-agent and bin/gnomon-load

.PHONY: $(BINARIES)
$(BINARIES): bin/%:
	@echo "build: $@"
	@$(GO_BUILD) -o $@ ./cmd/$*

.PHONY: appliance
appliance: build ## Build the shadow's image (build/appliance) and the demo guest's (build/guest)
	@bin/gnomon appliance build --init bin/gnomon-agent --out build/appliance
	@bin/gnomon appliance build --init bin/gnomon-load --out build/guest --for guest

.PHONY: lab-vpa
lab-vpa: ## Build bin/gnomon-lab-vpa: Kubernetes' vertical autoscaler, for the laboratory
	@cd lab/vpa && $(GO_BUILD) -o ../../bin/gnomon-lab-vpa .

.PHONY: demo
demo: setup appliance ## One VM with a shadow beside one without, live; DEMO_SECONDS=n, 0 until Ctrl-C
	@DEMO_SECONDS=$(DEMO_SECONDS) bin/gnomon demo $(DEMO_FLAGS)

.PHONY: up
up: setup appliance ## Give the VMs of this host a shadow each, until Ctrl-C (as root)
	@bin/gnomon up

.PHONY: test
test: ## Every test, those on real VMs too, with all the set-up they need (as root)
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check-generated appliance test-unit
	@echo "test: packages with VMs, one after the other"
	@GNOMON_TEST_VM=1 go test -count=1 -p 1 -timeout 15m $(filter-out $(RANDOM_TESTS),$(VM_TESTS))
	@GNOMON_TEST_VM=1 go test -count=1 -p 1 -timeout 15m $(filter $(RANDOM_TESTS),$(VM_TESTS)) $(SEED)

.PHONY: test-hosts
test-hosts: setup appliance ## Three hosts with a libvirt each on this machine: partitions, moves (as root; two minutes)
	@GNOMON_TEST_VM=1 GNOMON_TEST_HOSTS=1 go test -count=1 -timeout 15m -run '^TestSeveralHosts$$' -v ./test/vm

.PHONY: test-unified
test-unified: ## What needs control groups, in a guest that has cgroup v2 (as root; half a minute)
	@scripts/setup.sh test
	@GNOMON_TEST_UNIFIED=1 go test -count=1 -timeout 15m -run '^TestUnifiedControlGroups$$' -v ./test/events

.PHONY: test-unit
test-unit: ## The tests that need neither root nor libvirt
	@echo "test: packages without VMs"
	@go test -count=1 -timeout 5m $(call tests_but,$(VM_TESTS) $(RANDOM_TESTS))
	@go test -count=1 -timeout 5m $(filter-out $(VM_TESTS),$(RANDOM_TESTS)) $(SEED)
	@cd lab/vpa && go test -count=1 -timeout 5m ./...

.PHONY: soak
soak: ## The random tests, each on SOAK_CHECKS new cases
	@go test -count=1 -p 1 -timeout 2h $(RANDOM_TESTS) -rapid.checks=$(SOAK_CHECKS)

.PHONY: lint
lint: ## Formatting, go vet and the linters of .golangci.yml
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  [[ -z "$$unformatted" ]] || { echo "gofmt -w these:"; echo "$$unformatted"; exit 1; }
	@go vet ./...
	@cd tools && go build -o ../.tools/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@.tools/golangci-lint run ./...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZ_SECONDS
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "fuzz: $$(dirname "$$file") $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_SECONDS)s "$$(dirname "$$file")"; \
	  done; \
	done

.PHONY: bench
bench: ## Run the benchmarks
	@go test -run '^$$' -bench . -benchmem ./... | grep -v -e '^?' -e 'no test files'

# More for the measurement, such as -hosts 100,1000.
SCALE_FLAGS ?=

.PHONY: bench-fleet
bench-fleet: bin/gnomon ## Measure one server against 100, 1,000 and 10,000 simulated hosts (10 minutes)
	@go run ./test/scale -gnomon bin/gnomon $(SCALE_FLAGS)

.PHONY: record-traces
record-traces: setup build ## Record traces/ anew: VMs that run Debian's software (as root; an hour)
	@scripts/traces/record.sh

.PHONY: bench-events
bench-events: setup appliance ## Measure how soon a shadow's agent knows that its VM is short, and at what cost (as root)
	@GNOMON_TEST_VM=1 GNOMON_BENCH=1 go test -count=1 -timeout 20m -run TestFigures -v ./test/events

.PHONY: bench-shadow
bench-shadow: ## What SHADOWS shadows cost that forecast once a second, as VMs and as processes (as root)
	@GNOMON_TEST_VM=1 GNOMON_BENCH_SHADOWS=$(SHADOWS) go test -count=1 -timeout 20m -run '^TestFleet$$' -v ./shadow | grep -v -e level= -e '^==='

# Both measure on real guests and need an idle machine for their absolute
# figures; BENCH_FLAGS such as -runs 5 or -resources cpu.
.PHONY: bench-handover
bench-handover: setup ## How long a VM waits for what another holds, by every path (as root)
	@go run ./test/bench/handover $(BENCH_FLAGS)

.PHONY: bench-host
bench-host: setup ## What the daemon costs by the number of VMs, and one call a metric beside it (as root)
	@go run ./test/bench/host $(BENCH_FLAGS)

.PHONY: bench-stages
bench-stages: setup appliance ## How long each stage of a decision takes, by the number of VMs (as root)
	@go run ./test/bench/stages $(BENCH_FLAGS)

# The references need Debian's python3-statsmodels.
.PHONY: accuracy
accuracy: bin/gnomon ## Measure every model on traces, TRACES=folder, and write docs/accuracy.md
	@[[ -d "$(TRACES)" ]] || { echo "accuracy: TRACES=\"$(TRACES)\": want a folder that holds one folder a data set"; exit 2; }
	@/usr/bin/python3 -B scripts/accuracy.py --traces "$(TRACES)" $(ACCURACY_FLAGS) > docs/accuracy.md.new
	@mv docs/accuracy.md.new docs/accuracy.md

# The plugins come from go.mod, so that everyone generates with the same ones.
.PHONY: generate
generate: ## Generate wire/*pb and docs/api.md from wire/proto, and pressure's programs from pressure/bpf
	@$(call protoc,.)
	@command -v clang >/dev/null || scripts/setup.sh generate
	@go generate ./pressure
	@cd pressure/bpf && sha256sum *.c *.h > sources.sha256

.PHONY: check-generated
check-generated: ## Fail where what is generated is not what its sources say
	@cd pressure/bpf && sha256sum --quiet -c sources.sha256 || { echo "pressure/bpf changed: run make generate"; exit 1; }
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	  $(call protoc,"$$tmp"); \
	  for dir in agentpb hostpb serverpb; do \
	    diff -r "$$tmp/wire/$$dir" "wire/$$dir" || { echo "wire/$$dir is stale: run make generate"; exit 1; }; \
	  done; \
	  diff "$$tmp/docs/api.md" docs/api.md || { echo "docs/api.md is stale: run make generate"; exit 1; }

define protoc
[[ -e /usr/include/google/protobuf/field_mask.proto ]] && command -v protoc >/dev/null || scripts/setup.sh generate; \
go build -o .tools/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go; \
go build -o .tools/protoc-gen-apidoc ./wire/apidoc; mkdir -p $(1)/docs; \
PATH="$(CURDIR)/.tools:$$PATH" protoc -I wire/proto \
  --go_out=$(1) --go_opt=module=$(MODULE) \
  --connect-go_out=$(1) --connect-go_opt=module=$(MODULE) \
  --apidoc_out=$(1) \
  $$(cd wire/proto && find gnomon -name '*.proto' | sort)
endef

.PHONY: clean
clean: ## Remove what was built; VMs and data of a run are the demo's own to remove
	@rm -rf bin build demo-out .tools
