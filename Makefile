# `make help` lists the targets. build, demo and test need Go and make alone. The others build what they need: Go
# programs into .tools, pinned in tools/go.mod, and Python packages into .venv, pinned in interop/requirements.txt.

SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

BINARY := bin/orrery
# Without git or its history the binary's version is "devel".
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null)
GO_FILES := find . -name '*.go' -not -path './.*'
# Made anew for another compiler too: staticcheck reads no code newer than itself.
TOOLS = .tools/built-$(shell go env GOVERSION)
VENV := .venv/installed
WITH_TOOLS := PATH="$(CURDIR)/.tools:$$PATH"

.PHONY: help
help: ## Show this list
	@awk -F ': .*## ' '/^[a-z0-9-]+: .*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- build and try

.PHONY: build demo
build: ## Build bin/orrery, one static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o $(BINARY) ./cmd/orrery

demo: build ## Show a cluster that serves, and goes on when its leader is killed
	$(BINARY) demo --models models

# ---- test

.PHONY: test test-packages test-e2e test-histories interop
test: test-packages test-e2e ## Run all tests: units, clusters in virtual time, real processes

# Real processes mind company on a slow machine, so those tests have it to themselves.
# With the race detector each package has one thread: in virtual time two threads may run timers of one bubble at once, with
# one record of what happened before, and once in some runs that crashed the detector itself (Go 1.26.8, a SIGSEGV under
# synctest.Run). What it finds does not depend on threads.
test-packages: ## Run those inside one process alone
	race=$$(tools/race.sh); test -z "$$race" || export GOMAXPROCS=1; \
	go test -p 2 $$race -timeout 20m $$(go list ./... | grep -v /e2e)

test-e2e: ## Run those on real processes alone
	race=$$(tools/race.sh); go test $$race -timeout 15m -count 1 -p 1 ./e2e/...

test-histories: ## Run the long test of linearizability alone (3 to 5 minutes; root cuts networks too)
	HISTORIES=long go test -timeout 30m -count 1 -v ./e2e/histories

interop: build $(TOOLS) $(VENV) ## Test against clients that are not ours (needs Python 3.11)
	PYTHONDONTWRITEBYTECODE=1 timeout -s INT -k 30 300 .venv/bin/python -m pytest interop

# ---- measure

.PHONY: bench-failover bench-workers bench-steady bench-predict bench-startup bench-fidelity bench-policies
TRIALS = 10
ROWS =
RESULTS = bin/failover.jsonl

bench-failover: build ## Measure what faults of controllers cost (Linux, root; TRIALS=10 ROWS=kill,vanish; goes on where it stopped)
	go run ./e2e/failover -binary $(BINARY) -results '$(RESULTS)' -trials $(TRIALS) -rows '$(ROWS)'

bench-workers: build ## Measure what faults of workers cost (Linux, root; TRIALS=10 ROWS=kill,freeze; goes on where it stopped)
	go run ./e2e/workers -binary $(BINARY) -trials $(TRIALS) -rows '$(ROWS)'

REQUESTS = 10000
MODELS = 1000
WORKERS = 20

bench-predict: build ## Measure predicted against actual execution times (Linux; REQUESTS=10000 to each engine)
	go run ./e2e/predict -binary $(BINARY) -requests $(REQUESTS)

bench-startup: build ## Measure the start with many models, and a change of leader then (Linux; MODELS=1000 WORKERS=20)
	go run ./e2e/startup -binary $(BINARY) -models $(MODELS) -workers $(WORKERS)

SPAN = 30s

bench-fidelity: build ## Hold the simulator against real processes (Linux; SPAN=30s of each load)
	go run ./e2e/fidelity -binary $(BINARY) -span $(SPAN)

POLICIES = all
SEEDS = 10
ONLY =
JOBS = 2

bench-policies: SPAN = 60s
bench-policies: ## Play workloads with all policies in the simulator (Linux; POLICIES=all SEEDS=10 SPAN=60s ONLY=poisson JOBS=2)
	go run ./e2e/policies -policies '$(POLICIES)' -seeds $(SEEDS) -span $(SPAN) -only '$(ONLY)' -jobs $(JOBS)

DURATION = 10m

bench-steady: build ## Look for elections without a fault: under full load of others, and at 80 % of the limit (Linux; DURATION=10m each)
	go run ./e2e/steady -binary $(BINARY) -busy '$(DURATION)' -load '$(DURATION)'

# ---- source

.PHONY: fmt check-fmt generate check-generate check-tidy vet staticcheck
fmt: ## Format the Go files
	$(GO_FILES) -exec gofmt -l -w {} +

check-fmt: ## Fail if a Go file is not formatted
	@files=$$($(GO_FILES) -exec gofmt -l {} +); \
	test -z "$$files" || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }

generate: $(TOOLS) ## Generate the Go code of proto/
	cd proto && $(WITH_TOOLS) buf generate

check-generate: $(TOOLS) ## Fail if the Go code of proto/ is out of date
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; cd proto; $(WITH_TOOLS) buf generate -o "$$fresh"; \
	diff -r -x '*.proto' -x '*.yaml' -x '*.md' . "$$fresh" || { echo "proto/ is out of date, run make generate"; exit 1; }

check-tidy: ## Fail if go.mod or go.sum is not tidy
	go mod tidy -diff
	cd tools && go mod tidy -diff

vet: ## Run go vet
	go vet ./...

staticcheck: $(TOOLS) ## Run staticcheck
	.tools/staticcheck ./...

# ---- all of it

CI_STEPS := tools build check-fmt check-tidy check-generate vet staticcheck test interop

.PHONY: ci tools clean
ci: ## Run everything above that can fail, with the time of each step
	@now() { date +%s; }; began=$$(now); \
	for step in $(CI_STEPS); do \
		echo "--- $$step"; start=$$(now); \
		$(MAKE) $$step || { echo "--- $$step FAILED after $$(( $$(now) - start )) s"; exit 1; }; \
		echo "--- $$step took $$(( $$(now) - start )) s"; \
	done; \
	echo "--- all passed in $$(( $$(now) - began )) s"

tools: $(TOOLS) ## Build the pinned tools into .tools

$(TOOLS): tools/go.mod tools/go.sum
	cd tools && CGO_ENABLED=0 GOBIN="$(CURDIR)/.tools" go install tool
	touch $@

# Some systems have venv in a package of its own; virtualenv does as well where that is missing.
$(VENV): interop/requirements.txt
	rm -rf .venv
	python3 -m venv .venv || { rm -rf .venv; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
		python3 -m pip install --quiet --target "$$scratch" virtualenv; PYTHONPATH="$$scratch" python3 -m virtualenv --quiet .venv; }
	.venv/bin/python -m pip install --quiet -r interop/requirements.txt
	touch $@

clean: ## Remove what make has made
	rm -rf bin .tools .venv
