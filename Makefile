# Saatkond. `make help` lists what there is. Long steps say how long they take; all can be run again at any time.
# What is installed goes to a cache outside of the repository (testbed/install.sh) or to target/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

STAGE := hack/stage.sh
# Always the whole workspace's features: building crates one by one would build their dependencies once for each.
BUILD := cargo build --workspace
# Not so what ships, or it would carry what only tests and generators ask of its dependencies. Testbed and demo ask for nothing that
# what ships does not have: in one build with it a first `make demo` builds each dependency once. Tests have their own beside them.
RELEASE_BUILD := cargo build --release -p saatkond -p saatkond-person-register -p saatkond-plugin -p saatkond-testbed -p saatkond-e2e
TOOLS := $(CURDIR)/target/tools/bin
# Where cargo puts binaries: .cargo/config.toml names the target, so that static linking spares build scripts.
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE = target/$(TRIPLE)/release
DEBUG = target/$(TRIPLE)/debug
TESTBED = $(RELEASE)/testbed
export PATH := $(TOOLS):$(PATH)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build

.PHONY: tools-api
tools-api: ## Install the API-server tier of the testbed (Go; no root)
	@$(STAGE) "tools: API server" testbed/install.sh api

.PHONY: tools
tools: ## Install all that the testbed runs: Kubernetes, containerd, PostgreSQL image, ... (root, see CONTRIBUTING.md)
	@$(STAGE) "tools: regions" testbed/install.sh regions

.PHONY: build
build: ## Build every crate, for development
	@$(STAGE) "build" cargo build --workspace --all-targets

.PHONY: testbed
testbed:
	@$(STAGE) "build: testbed and demo" $(RELEASE_BUILD) --bin testbed --bin demo

.PHONY: image
image: testbed ## Build the images from static release binaries, print their size
	@$(STAGE) "build: release binaries" $(RELEASE_BUILD) --bins
	@$(STAGE) "image: saatkond" hack/image.sh $(TESTBED) $(RELEASE)/saatkond saatkond:dev target/images/saatkond.tar 20
	@$(STAGE) "image: person register" hack/image.sh $(TESTBED) $(RELEASE)/person-register saatkond-person-register:dev \
		target/images/person-register.tar

.PHONY: generate
generate: ## Write what is generated: CRDs, the chart's CRDs, the field reference
	@$(STAGE) "build: xtask" $(BUILD) --quiet --bin saatkond-xtask
	@$(STAGE) "generate" $(DEBUG)/saatkond-xtask gen

.PHONY: plugin
plugin: ## Build kubectl-saatkond and link it into target/tools/bin: have that in your PATH
	@$(STAGE) "build: plugin" $(RELEASE_BUILD) --bin kubectl-saatkond
	@mkdir -p "$(TOOLS)"
	@ln -sf "$(CURDIR)/$(RELEASE)/kubectl-saatkond" "$(TOOLS)/kubectl-saatkond"

##@ Test

.PHONY: test
test: ## Everything that must pass: format, lints, unit, integration, chart, a journey in a region
	@hack/test.sh

.PHONY: unit
unit: ## Only the unit tests: no server is started, nothing needs to be installed
	@$(STAGE) "unit tests" cargo test --workspace --lib --bins

.PHONY: chart
chart: ## Test the Helm chart: lint, golden renders, refused values (UPDATE=1 writes the renders anew)
	@$(STAGE) "chart" env UPDATE=$(UPDATE) cargo test --workspace --test chart

.PHONY: crash
crash: tools-api ## Crash plans beyond those of `make test`, half an hour: pairs of crashes, API faults, 5 min of idling
	@$(STAGE) "build: testbed" $(BUILD) --quiet --bin testbed
	@$(STAGE) "crash" env SAATKOND_CRASH=deep cargo test --workspace --no-fail-fast --test crash --test idle --test rotation -- --nocapture

.PHONY: rotate-under-load
rotate-under-load: tools image ## Authorities replaced under a million calls and faults, about half an hour (ARGS=--help: shorter ones)
	@# By itself: built together, what it calls would carry what it asks of their dependencies.
	$(STAGE) "build: rotate-under-load" cargo build --release -p saatkond-under-load
	@$(STAGE) "rotate-under-load" $(RELEASE)/rotate-under-load $(ARGS)

.PHONY: bench
bench: name-given tools testbed $(if $(filter footprint gateway-pair,$(NAME)),image) ## One benchmark: NAME=federation-size, gateway-pair or footprint; lines go to target/bench/NAME.jsonl
	@$(STAGE) "build: release binaries" $(RELEASE_BUILD) --bins
	@# By itself: built together, what it measures would carry what it asks of their dependencies.
	$(STAGE) "build: bench" cargo build --release -p saatkond-bench
	@$(STAGE) "bench $(NAME)" $(RELEASE)/bench $(NAME)

.PHONY: name-given
name-given:
	@if [ -z "$(NAME)" ]; then echo "say which: make bench NAME=federation-size, gateway-pair or footprint" >&2; exit 2; fi

.PHONY: alone
alone: ## Check each crate by itself, minutes: nearly all dependencies are checked anew for each one's features
	@$(STAGE) "each crate alone" hack/alone.sh

.PHONY: deny
deny: ## Licences, advisories and sources of all dependencies (installs cargo-deny into target/tools)
	@if ! cargo deny --version >/dev/null 2>&1; then
		$(STAGE) "install: cargo-deny" cargo install --quiet --locked --root target/tools cargo-deny
	fi
	@$(STAGE) "deny" cargo deny --all-features check

##@ Run

.PHONY: regions
regions: ## Start three real Kubernetes on this machine: home, lux, fin
	@testbed/install.sh packages
	$(MAKE) tools testbed
	@$(STAGE) "regions" $(TESTBED) up

.PHONY: regions-down
regions-down: testbed ## Stop them and remove all that they made
	@$(STAGE) "regions-down" $(TESTBED) down

.PHONY: demo
demo: ## A federation that exchanges data, step by step; leaves the region running
	@# A linker for Rust is among the packages. Then side by side: what Go leaves idle while it fetches and links, Rust uses.
	testbed/install.sh packages
	$(MAKE) --jobs=2 tools image
	$(MAKE) plugin
	$(STAGE) "demo" $(RELEASE)/demo
