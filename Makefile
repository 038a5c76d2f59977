# The one list of commands. What CI runs is `make test` (see .ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# nginx and its like live in sbin, which is not on everybody's PATH.
export PATH := $(PATH):/usr/sbin:/sbin

# `make test PROFILE=ci` tests the binaries of another cargo profile. Tests find `server` and `client` in
# the target folder of the profile they were built with themselves.
PROFILE ?=
CARGO_PROFILE := $(if $(PROFILE),--profile $(PROFILE))
MEASURE_PROFILE := $(or $(CARGO_PROFILE),--release)
NEXTEST_PROFILE := $(if $(PROFILE),--cargo-profile $(PROFILE))
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# What `make test-all` runs after `make test`: one goal each, in this order.
SLOW := test-ignored fuzz-smoke

# `make fuzz FUZZ=client_hello FUZZ_SECONDS=60`: one target, or all, and how long for each.
FUZZ ?=
FUZZ_SECONDS ?= 600
FUZZ_SMOKE_SECONDS := 5

# Thousands of visitors need thousands of descriptors: the soft limit goes up to the hard one.
RAISE_LIMITS := ulimit -Sn "$$(ulimit -Hn)" || true
HAVE_NEXTEST := cargo nextest --version >/dev/null 2>&1
HAVE_DENY := cargo deny --version >/dev/null 2>&1
LIST_SHELL_SCRIPTS := find . \( -name target -o -name .git -o -name .venv -o -name node_modules \) -prune \
	-o -type f -print0 | LC_ALL=C xargs -0 awk 'FNR == 1 && /^\#!.*[\/ ](ba)?sh( |$$)/ { print FILENAME } { nextfile }'

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what the tests need (idempotent; asks nothing)
	@scripts/setup

.PHONY: build
build: ## build `server` and `client` in release
	cargo build --release --locked -p relay -p client
	@echo "built: $(TARGET_DIR)/release/server $(TARGET_DIR)/release/client"

.PHONY: demo
demo: ## a relay, an agent and a local service in one process, on loopback, until Ctrl-C
	cargo build --release --locked -p client
	$(TARGET_DIR)/release/client demo

.PHONY: demo-acme
demo-acme: setup build ## an authority, a relay and an agent on loopback: trusted certificates at both ends, until Ctrl-C
	@scripts/demo-acme

.PHONY: test
test: setup lint test-doc test-run ## set up, lint, build, run every test that is not slow (what CI runs)

.PHONY: test-all
test-all: test $(SLOW) ## `make test` and whatever is slow

# `make bench PARTS=loopback ROWS=haproxy,quic FIGURES=many,download ROUNDS=5` measures these alone.
.PHONY: bench
bench: setup build bench-peers ## ours against HAProxy, rathole and bore, on loopback and over a lossy line (root; 20 min and a build)
	cargo build --release --locked -p bench
	@$(RAISE_LIMITS); $(TARGET_DIR)/release/bench

.PHONY: measure-head-of-line
measure-head-of-line: measure-bins ## how many visitors one lost packet holds up, QUIC and HTTP/2 (root, Linux; some minutes)
	@REQUIRE_NETSIM=1 cargo run --quiet --locked -p e2e --example measure-head-of-line $(MEASURE_PROFILE)

.PHONY: measure-ways
measure-ways: measure-bins ## how long visitors wait when UDP is blocked, dies and comes back (root, Linux)
	@REQUIRE_NETSIM=1 cargo run --quiet --locked -p e2e --example measure-ways $(MEASURE_PROFILE)

.PHONY: measure-netsim
measure-netsim: ## speed and exactness of the simulated network that tests use (root, Linux)
	@REQUIRE_NETSIM=1 cargo run --quiet --locked -p e2e --example measure-netsim $(CARGO_PROFILE)

.PHONY: bench-micro
bench-micro: ## time reading a ClientHello, routing and the splice, in memory (criterion; some 2 min and a build)
	cargo bench -p bench --bench '*' --locked

# `make chaos STORY=nat,mtu` plays these stories alone, and writes nothing.
.PHONY: chaos
chaos: measure-bins ## break networks, relays and agents, for how long is nobody served? (root, Linux; 15 min)
	@$(RAISE_LIMITS); RUST_BACKTRACE=0 REQUIRE_NETSIM=1 \
		cargo run --quiet --locked -p e2e --example chaos $(MEASURE_PROFILE)

.PHONY: docker-test
docker-test: ## build the images and use them in a real engine (root, or a running engine; some 10 min)
	@scripts/setup --docker
	@scripts/docker-test

.PHONY: fuzz
fuzz: ## fuzz the parsers, FUZZ_SECONDS=600 for each target, or one of them: FUZZ=client_hello
	@scripts/fuzz $(FUZZ_SECONDS) $(FUZZ)

.PHONY: lint
lint: ## formatting, clippy, rustdoc, structure, shell scripts, licences
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	scripts/check-structure --self-test
	scripts/check-structure
	$(LIST_SHELL_SCRIPTS) | xargs shellcheck
	@if $(HAVE_DENY); then \
		echo "cargo deny check bans licenses sources"; \
		cargo deny --locked check bans licenses sources; \
	else \
		echo "lint: cargo-deny is not installed, bans, licences and sources are not checked"; \
	fi
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p client --no-default-features --all-targets --locked -- -D warnings
	cargo clippy -p first-flight -p tunnel-common --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --document-private-items --locked

.PHONY: clean
clean: ## remove what was built and what setup put into this folder
	cargo clean
	rm -rf .venv node_modules

# The parts of `test` and `test-all`.

# The measurements over the simulated network start these, of the profile they were built with themselves.
.PHONY: measure-bins
measure-bins:
	cargo build --locked -p relay -p client $(MEASURE_PROFILE)

# What `bench` compares with. One that can not be installed is named there. rathole's own lock file has a crate
# that no present compiler takes.
.PHONY: bench-peers
bench-peers:
	@for peer in "--locked bore-cli" "rathole"; do \
		cargo install --quiet --root $(TARGET_DIR)/peers $$peer || echo "bench: not installed: $$peer"; \
	done

# The end-to-end stories start these.
.PHONY: test-bins
test-bins:
	cargo build --workspace --bins --locked $(CARGO_PROFILE)

.PHONY: test-doc
test-doc:
	cargo test --doc --workspace --locked --no-fail-fast $(CARGO_PROFILE)

# Tests named heavy_… run one at a time: by .config/nextest.toml or, without nextest, in a second turn.
.PHONY: test-run
test-run: test-bins
	@$(RAISE_LIMITS); \
	if $(HAVE_NEXTEST); then \
		cargo nextest run --workspace --locked --no-tests=pass $(NEXTEST_PROFILE); \
	else \
		cargo test --workspace --tests --locked --no-fail-fast $(CARGO_PROFILE) -- --skip heavy_; \
		cargo test --workspace --tests --locked --no-fail-fast $(CARGO_PROFILE) -- heavy_ --test-threads=1; \
	fi

# Tests marked #[ignore]: too long for every change.
.PHONY: test-ignored
test-ignored: test-bins
	@$(RAISE_LIMITS); \
	if $(HAVE_NEXTEST); then \
		cargo nextest run --workspace --locked --run-ignored only --no-tests=pass $(NEXTEST_PROFILE); \
	else \
		cargo test --workspace --tests --locked --no-fail-fast $(CARGO_PROFILE) -- --ignored --test-threads=1; \
	fi

# A few seconds for each fuzz target: that they build and run. The corpora are tested by `make test` already.
.PHONY: fuzz-smoke
fuzz-smoke:
	@scripts/fuzz $(FUZZ_SMOKE_SECONDS)
