# Thin: each target runs one or two commands that can as well be run by hand. Variables: JOBS, how many processes a build
# or a test run may use; TEST_SECONDS_MAX and SPEC_SECONDS_MAX, how long tests may take.
JOBS ?= $(shell nproc)
TEST_SECONDS_MAX ?= 1200
SPEC_SECONDS_MAX ?= 1500
RELEASE := build/release
BENCHES := start compute compile http web table3 density state chain isolation process

.PHONY: help
help:
	@echo "make quickstart    from a fresh clone to answers over HTTP"
	@echo "make build         Spore alone, optimised, into $(RELEASE)"
	@echo "make examples      the example functions, into build/examples"
	@echo "make test          installs what tests need, builds, runs the fast tests and the WebAssembly spec suite"
	@echo "make test-spec     the spec suite alone"
	@echo "make test-security the attacker's suite at full size: hostile guests, beside a tenant that behaves"
	@echo "make nightly       the long tests: sanitizers, the spec suite under them, fuzzers, big counts"
	@echo "make bench         all benchmarks; make bench-NAME one of: $(BENCHES)"
	@echo "make format tidy   clang-format over the sources; clang-tidy over what has changed since the main branch"
	@echo "make fuzz          the fuzzers, FUZZ_SECONDS each (default 60)"

.PHONY: quickstart install build examples
quickstart:
	@scripts/quickstart
install:
	@scripts/install
$(RELEASE)/build.ninja:
	cmake --preset release
build: $(RELEASE)/build.ninja
	cmake --build $(RELEASE) --parallel $(JOBS) --target spore spore-compiler
examples:
	$(MAKE) --no-print-directory -C examples

# ---- tests ----------------------------------------------------------------------------------------------------------
.PHONY: test test-spec test-security nightly
test: install
	cmake --preset release
	$(MAKE) --no-print-directory examples
	cmake --build $(RELEASE) --parallel $(JOBS)
	timeout $(TEST_SECONDS_MAX) ctest --test-dir $(RELEASE) --output-on-failure --timeout 300 -j $(JOBS) -LE slow
	@$(MAKE) --no-print-directory test-spec

# At the fast tier and the optimised one. The last line is "N passed, N failed, N skipped", counted in assertions.
test-spec: $(RELEASE)/build.ninja
	@cmake --build $(RELEASE) --parallel $(JOBS) --target spec-suite > $(RELEASE)/spec-build.log || \
	  { cat $(RELEASE)/spec-build.log; exit 1; }
	@timeout $(SPEC_SECONDS_MAX) $(RELEASE)/spec-suite --tier both --jobs $(JOBS) || \
	  { code=$$?; [ $$code = 124 ] && echo "the spec suite took more than $(SPEC_SECONDS_MAX) s"; exit $$code; }

# The last line is "security: N passed, N failed; neighbour: ...". All of it needs root; without, it says what is left out.
test-security: $(RELEASE)/build.ninja
	@cmake --build $(RELEASE) --parallel $(JOBS) --target spore spore-compiler security_test > $(RELEASE)/security.log || \
	  { cat $(RELEASE)/security.log; exit 1; }
	@tests/security/run $(RELEASE)

nightly: install examples
	scripts/nightly

# ---- benchmarks -----------------------------------------------------------------------------------------------------
.PHONY: bench $(addprefix bench-,$(BENCHES))
bench: $(addprefix bench-,$(BENCHES))
bench-start: $(RELEASE)/build.ninja
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_start > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@$(RELEASE)/bench_start
bench-compute: $(RELEASE)/build.ninja
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_compute > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@$(RELEASE)/bench_compute
bench-compile: build
	@$(MAKE) --no-print-directory -s -C examples python
	@bench/compile/run $(RELEASE)/spore
bench-http: build
	@bench/http/run $(RELEASE)
bench-web: build
	@$(MAKE) --no-print-directory -s -C examples c-web quickjs
	@bench/web/run $(RELEASE)
bench-table3: $(RELEASE)/build.ninja
	@scripts/install test
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_table3 > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@bench/table3/run $(RELEASE)
bench-density: $(RELEASE)/build.ninja
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_density bench_waiting > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@$(RELEASE)/bench_density
	@$(RELEASE)/bench_waiting
bench-state:
	@scripts/install test
	@cmake --preset release > /dev/null
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_state > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@$(RELEASE)/bench_state

bench-chain: $(RELEASE)/build.ninja
	@scripts/install test
	@cmake --build $(RELEASE) --parallel $(JOBS) --target bench_chain spore-compiler > $(RELEASE)/bench.log || \
	  { cat $(RELEASE)/bench.log; exit 1; }
	@bench/chain/run $(RELEASE)
bench-process: build
	@bench/process/run $(RELEASE)

bench-isolation: $(RELEASE)/build.ninja
	@scripts/install test
	@cmake --build $(RELEASE) --parallel $(JOBS) --target spore spore-compiler bench-isolation-light \
	  bench_isolation_network > $(RELEASE)/bench.log || { cat $(RELEASE)/bench.log; exit 1; }
	@bench/isolation/run $(RELEASE)

# ---- the sources ----------------------------------------------------------------------------------------------------
.PHONY: format tidy fuzz
SOURCES = $(shell git ls-files '*.cc' '*.h' '*.hpp' '*.c')
format:
	clang-format-19 -i $(SOURCES)
tidy: $(RELEASE)/build.ninja
	git diff -U0 --merge-base $(or $(SINCE),main) -- '*.cc' '*.h' | \
	  clang-tidy-diff-19.py -p1 -path $(RELEASE) -clang-tidy-binary clang-tidy-19 -j $(JOBS) -quiet
fuzz:
	scripts/fuzz $(or $(FUZZ_SECONDS),60)
