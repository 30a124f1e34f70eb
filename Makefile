# What everyone types: make lab, make test. `make help` lists the rest.
#
#   make lab                     the whole system on this machine, until Ctrl-C
#   make lab ONCE=1              one full pass, then exit 0 or 1
#   make lab ARGS='--dir x'      further flags for cmg lab
#   make bench WORK=w1 PEERS=cmg,nginx2
#   make fuzz FUZZTIME=30s       every fuzz target, one after the other

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

GO       ?= go
BIN      := $(CURDIR)/bin
FUZZTIME ?= 10s
BENCH    ?= .
PEERS    ?= cmg,nginx2,nginx1,haproxy,haproxy-t1,haproxy-w5,frp-http,frp-tcp,chisel
WORK     ?= all
ROUNDS   ?= 5
LENGTH   ?= 3s
ARGS     ?=
VERSION  ?=
LDFLAGS  := -s -w $(if $(VERSION),-X github.com/opencmg/cmg.Version=$(VERSION))

# One static binary, pure Go; only the race detector needs a C compiler.
export CGO_ENABLED ?= 0
STATICCHECK := $(GO) tool -modfile=tools/go.mod staticcheck
STORIES     := $(if $(wildcard e2e/*_test.go),./e2e/...)

.PHONY: help build lab test needs check vet staticcheck format house unit e2e fuzz bench microbench pgo cross clean

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

build: ## bin/cmg, static
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/cmg ./cmd/cmg

lab: build ## the whole system on this machine; ONCE=1 for one pass
	@$(BIN)/cmg lab $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

test: needs check unit e2e cross ## everything CI needs

needs: ## a C compiler, curl, openssl: installed where that is allowed
	@.ci/needs

check: format vet staticcheck house ## format, vet, staticcheck, the house's rules

format: ## gofmt
	@files=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs -r ls 2>/dev/null | xargs -r "$$($(GO) env GOROOT)/bin/gofmt" -l); \
	if [ -n "$$files" ]; then echo "not as gofmt writes it:" $$files >&2; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

staticcheck: ## staticcheck, pinned in tools/go.mod
	$(STATICCHECK) ./...

house: ## imports, file length, package sentences, refusals explained
	$(GO) test -count=1 -run '^Test(House|Layers|Refusals|OneClock)' .

# Seeds of every fuzz target run with the tests. Without a C compiler there
# is no race detector: a person is told, CI fails.
unit: ## all unit tests, with the race detector
	@packages=$$($(GO) list ./... | grep -vE '/(e2e|bench)(/|$$)'); \
	if command -v "$$($(GO) env CC | cut -d' ' -f1)" >/dev/null; then \
		echo "go test -race (all packages)"; CGO_ENABLED=1 $(GO) test -race -timeout 10m $$packages; \
	elif [ -n "$${CI:-}" ]; then \
		echo "no C compiler: the race detector cannot run, and CI skips nothing" >&2; exit 1; \
	else \
		echo "no C compiler: testing without the race detector" >&2; $(GO) test -timeout 5m $$packages; \
	fi

e2e: build ## stories told against the built binary, and the bench's smoke
	CMG_BINARY=$(BIN)/cmg $(GO) test -count=1 -timeout 5m ./bench
	$(if $(STORIES),CMG_BINARY=$(BIN)/cmg $(GO) test -count=1 -timeout 20m $(STORIES))
	$(if $(STORIES),,@echo "e2e: no stories" >&2; test -z "$${CI:-}")

# Minimising what is merely interesting may not eat the time.
# Go's fuzzer now and then fails at the end of its time with "context deadline
# exceeded" and no input to blame: that is no finding. A finding names the file
# it was written to.
fuzz: ## every fuzz target for FUZZTIME
	@found=0; log=$$(mktemp); trap 'rm -f $$log' EXIT; \
	while IFS=: read -r file func; do \
		found=1; echo "fuzz $$(dirname $$file) $$func $(FUZZTIME)"; \
		if ! $(GO) test -run '^$$' -fuzz "^$$func\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s "./$$(dirname $$file)" 2>&1 | tee $$log; then \
			if grep -q 'context deadline exceeded' $$log && ! grep -qE 'Failing input|panic|_test\.go:' $$log; then \
				echo "its time was over: no finding"; \
			else exit 1; fi; \
		fi; \
	done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs -r grep -oE '^func Fuzz[A-Za-z0-9_]*' /dev/null | sed 's/:func /:/' | sort); \
	if [ $$found = 0 ]; then echo "no fuzz target found" >&2; exit 1; fi

# Packages and modules it wants are installed first, as far as they can be had.
bench: build ## W1-W6 on the built binary beside other gateways; PEERS, WORK, ROUNDS, LENGTH
	$(GO) build -o $(BIN)/bench ./bench
	eval "$$(GO='$(GO)' bench/install.sh bench/cache)"; CMG="$${CMG:-$(BIN)/cmg}" \
	$(BIN)/bench run -peers '$(PEERS)' -wl '$(WORK)' -rounds $(ROUNDS) -d $(LENGTH) -results bench/results $(ARGS)

# The compiler looks at cmd/cmg/default.pgo by itself. None is kept: to build
# every package again by it costs a minute of CPU for each system, and no gain
# was seen beyond what the bench's figures vary by.
pgo: build ## cmd/cmg/default.pgo from the bench, for a profile-guided build
	$(GO) build -o $(BIN)/bench ./bench
	rm -rf $(BIN)/pgo && mkdir -p $(BIN)/pgo
	CMG='$(BIN)/cmg' CMG_CPU_PROFILE='$(BIN)/pgo' $(BIN)/bench run -peers cmg -wl w1,w1h2,w1h2m,w2,w3,w3u,w4,w4r -rounds 1 -d 4s
	$(GO) tool pprof -proto -output cmd/cmg/default.pgo $(BIN)/pgo/*.pprof

microbench: ## every benchmark of a package, BENCH chooses
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

cross: ## compiles for Windows and macOS
	GOOS=windows GOARCH=amd64 $(GO) build -trimpath -o /dev/null ./cmd/cmg
	GOOS=darwin GOARCH=arm64 $(GO) build -trimpath -o /dev/null ./cmd/cmg
	GOOS=windows GOARCH=amd64 $(GO) vet ./cmd/... ./role/... ./content/... ./blob/...

clean: ## what make built
	rm -rf $(BIN)
