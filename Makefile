# SPDX-License-Identifier: Apache-2.0
# make test, check, bench and demo do their own set-up, see scripts/setup.sh.

# With CI set, Cargo.lock must be complete; at a desk cargo may complete it.
locked := $(if $(CI),--locked)
# Elixir warns about file names in Latin-1 without it.
export ELIXIR_ERL_OPTIONS ?= +fnu

.PHONY: help setup build test test-rust test-loom test-erlang test-examples test-otp check bench profile soak asan demo doc clean

help:
	@echo 'make build   compiles everything, as rebar3 compile does'
	@echo 'make test    runs all tests: Rust, loom models, Erlang, the example projects'
	@echo 'make test-otp  runs the Erlang tests on OTP 25, 27 and 29; OTP="host trixie sid" some of them'
	@echo 'make check   formatting, lints, warnings as errors, xref, dialyzer, documentation'
	@echo 'make bench   runs the benchmarks and writes bench-report/index.html; BENCH="NAME ..." runs some of them'
	@echo 'make profile shows where the time of the benches goes, by perf; PROFILE="NAME ..." of some of them'
	@echo 'make soak    minutes of abuse (10, or TOKAMAK_SOAK_MINUTES), and 10 GiB through one stream'
	@echo 'make asan    AddressSanitizer over the core and the spawner, where there is a nightly toolchain'
	@echo 'make demo    runs the demonstration: indexes a directory tree; DEMO=PATH another one, DEMO=loop event loops'
	@echo 'make doc     writes the documentation to _build/doc and target/doc'
	@echo 'make clean   removes all that was built'

setup:
	@scripts/setup.sh all

build:
	@scripts/setup.sh build
	rebar3 compile

test: test-rust test-loom test-erlang test-examples

test-rust: setup
	cargo test --workspace $(locked)

# A target directory of its own, because the flag would recompile everything each time.
test-loom: setup
	RUSTFLAGS="$$RUSTFLAGS --cfg loom" CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-target}/loom" \
	  cargo test --package tokamak_core --release --lib $(locked) loom_

test-erlang: setup
	scripts/test-erlang.sh

test-examples: setup
	scripts/test-examples.sh

test-otp: setup
	scripts/test-otp.sh $(OTP)

check: setup
	scripts/check-headers.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(locked) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps $(locked)
	rebar3 as check do compile, xref, dialyzer
	rebar3 as test,check_tests compile
	rebar3 edoc

bench: setup
	scripts/bench.sh $(BENCH)

profile: setup
	scripts/profile.sh $(PROFILE)

soak: setup
	scripts/soak.sh

asan: setup
	scripts/asan.sh

demo:
	@scripts/setup.sh build
	scripts/demo.sh $(DEMO)

doc: setup
	cargo doc --workspace --no-deps
	rebar3 edoc

clean:
	rm -rf _build bench-report examples/mix_app/_build
	rm -f priv/*.so
	cargo clean
