# Thin entries; each calls a script that says what it is doing. `make help` lists them.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/plenum
# Build results live outside the checkout, so that a fresh clone is warm.
export CARGO_TARGET_DIR ?= $(CACHE)/target
.DEFAULT_GOAL := help

.PHONY: help up down kubeconfig images page test test-unit test-api test-e2e lint generate fuzz bench bench-moves bench-media bench-net

help: ## List the entries
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

up: ## Install what is missing, start a cluster, install Plenum, apply an example Meeting, print its link
	@tests/stack/up

down: ## Stop the local cluster and leave nothing behind
	@tests/cluster/down

kubeconfig: ## Print the path of the kubeconfig (use with make -s)
	@tests/stack/kubeconfig

page: ## Build the join page that the gateway serves
	@tests/stack/page

images: ## Build the binaries and their images
	@tests/stack/images

test: ## Everything: lint, unit, API server, cluster, browsers
	@tests/stack/test

test-unit: ## Fast tests, nothing but cargo and node
	@tests/stack/test unit

test-api: ## Tests against a real API server
	@tests/stack/test api

test-e2e: ## Tests with real browsers: against plenum-worker dev, then on the cluster
	@tests/stack/test e2e

lint: ## rustfmt, clippy, eslint, prettier, shellcheck, helm lint
	@tests/stack/test lint

generate: ## Rewrite what is generated: CRD YAML, API reference, error catalogue, protocol examples
	@PLENUM_GENERATE=1 cargo test --quiet -p plenum-errors -p plenum-crds -p plenum-protocol --lib

fuzz: ## What reads the network, fed with what nobody should send (see CONTRIBUTING.md)
	@worker/fuzz/run

bench: ## Benchmarks (see docs/benchmarks.md)
	@tests/stack/test bench

bench-moves: ## How long a move between rooms leaves somebody without a picture (needs make up)
	@tests/bench/run-moves

bench-media: ## What forwarding a packet costs, beside the limit; ARGS=soak: what one core carries (see docs/benchmarks.md)
	@tests/bench/run-media $(ARGS)

bench-net: ## The same call through bad networks, with the browser's own figures (see docs/benchmarks.md)
	@tests/bench/run-net
