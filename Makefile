# Tapway. `make` lists what there is to do.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Namespaces need privileges; a user namespace has them over itself.
ROOTED := $(if $(filter 0,$(shell id -u)),,unshare --user --map-root-user --net --)

FUZZ_SECONDS  ?= 60
FUZZ_TARGETS  := $(basename $(notdir $(wildcard dataplane/fuzz/fuzz_targets/*.rs)))
MICRO_BENCHES := $(filter-out netns,$(basename $(notdir $(wildcard benches/*.rs))))

.PHONY: help demo test bench lint fuzz doc deps

help: ## this list
	@while IFS=: read -r name what; do printf 'make %-6s  %s\n' "$$name" "$${what#*## }"; done \
	    < <(grep -E '^[a-z]+:.*## ' Makefile)

demo: ## builds the switch and shows it at work: hosts, VLANs, a transfer, the tables, a trace, tunnels; with VM=1 two virtual machines
	@.ci/packages demo$(if $(VM),-vm)
	cargo build --release --locked --bins
	$(if $(VM),cargo build --release --locked -p tapway --examples)
	tests/demo$(if $(VM),_vm).sh target/release

test: deps ## every test: unit, simulation, namespaces, black box, replay of the fuzz corpus
	cargo test --workspace --locked --no-run
	$(ROOTED) cargo test --workspace --locked --offline

bench: ## micro benches; the switch, the overlay, VM ports and each type of link beside their peers; a topology beside `ip -batch`; into target/bench
	@.ci/packages bench
	cargo build --release --locked --bins
	cargo bench --locked -p tapway $(MICRO_BENCHES:%=--bench %) -- --quick
	cargo bench --locked -p tapway --bench netns
	cargo bench --locked -p tapway --bench topology

lint: deps ## format, clippy, rustdoc, links of the documents, rules of the house
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked
	cargo test --locked -p tapway --test house --test docs

fuzz: deps ## each fuzz target for FUZZ_SECONDS (60); needs the nightly toolchain and cargo-fuzz
	@cargo +nightly --version &>/dev/null || { echo 'missing: rustup toolchain install nightly'; exit 1; }
	@cargo +nightly fuzz --version &>/dev/null || { echo 'missing: cargo install --locked cargo-fuzz'; exit 1; }
	@[ -n "$(FUZZ_TARGETS)" ] || { echo 'no targets in dataplane/fuzz/fuzz_targets'; exit 1; }
	@cd dataplane; for target in $(FUZZ_TARGETS); do \
	    echo "== $$target"; cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); done

doc: deps ## the library's documentation and the tool's man pages, into target/doc and target/man
	cargo doc --workspace --no-deps --locked
	mkdir -p target/man
	cargo run --quiet --locked --bin tapwayctl -- man target/man

deps: ## installs what building and testing need (Debian), where something is missing
	@.ci/packages test
