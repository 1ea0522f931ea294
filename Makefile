# Duet: build, talk, test, install.  `make help` lists the targets.  Everything built goes to build/.
SHELL      := /bin/bash
BUILD      ?= build
PREFIX     ?= /usr/local
CC         := $(if $(filter default,$(origin CC)),gcc,$(CC))
PKG_CONFIG ?= pkg-config
VERSION    := 0.1.0

# pkg-config name and Debian package of everything the program links; tests need cmocka besides.
PKGS    := openblas libsodium jansson libzip libutf8proc libpcre2-8 sqlite3 readline
DEBIAN  := gcc libc6-dev pkg-config libopenblas-openmp-dev libsodium-dev libjansson-dev libzip-dev libutf8proc-dev libpcre2-dev \
           libsqlite3-dev libreadline-dev
DEBIAN_TEST := libcmocka-dev

pkgflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null)
pkglibs  = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
# Debian keeps several OpenBLAS builds apart; ours is the OpenMP one, so that there is one pool of threads.
OPENBLAS_DIR = $(firstword $(wildcard /usr/lib/*/openblas-openmp))
RPATH        = $(if $(OPENBLAS_DIR),-Wl$(comma)-rpath$(comma)$(OPENBLAS_DIR))
comma       := ,

# `make V=1` shows the whole commands.
say = $(if $(V),,@echo "  $(1)"; )

OPT    ?= -O3
CFLAGS ?= $(OPT) -g
WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-psabi \
          -Werror=implicit-function-declaration -Werror=incompatible-pointer-types
ALLFLAGS = -std=c11 -D_DEFAULT_SOURCE -ffp-contract=off -fno-math-errno -fopenmp $(WARN) -I. $(CFLAGS) $(call pkgflags,$(PKGS)) \
           -DDUET_VERSION='"$(VERSION)"' -DDUET_PREFIX='"$(PREFIX)"'
LDALL    = -fopenmp $(CFLAGS) $(LDFLAGS) $(RPATH)

# Each directory is a library; commands.c, *_commands.c, bench.c and main.c are program code.
PROGRAM := $(wildcard models/commands.c corpus/commands.c corpus/*_commands.c dialog/commands.c dialog/*_commands.c eval/commands.c eval/*_commands.c eval/bench.c dialog/main.c)
objs     = $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(PROGRAM),$(wildcard $(1)/*.c)))
ROOMS   := models corpus dialog eval
M := $(BUILD)/libmodels.a
C := $(BUILD)/libcorpus.a
D := $(BUILD)/libdialog.a
E := $(BUILD)/libeval.a

# What a room and its tests may link: itself and what is below, with the foreign packages of those rooms.
LINK_models := $(M)
LINK_corpus := $(C) $(M)
LINK_dialog := $(D) $(M)
LINK_eval   := $(E) $(D) $(C) $(M)
PKGS_models := openblas libsodium jansson libzip libutf8proc
PKGS_corpus := $(PKGS_models)
PKGS_dialog := $(PKGS_models) libpcre2-8 sqlite3 readline
PKGS_eval   := $(PKGS_dialog)

.PHONY: all
all: $(BUILD)/duet

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,cc $<)$(CC) $(ALLFLAGS) -MMD -MP -c $< -o $@

define library
$(BUILD)/lib$(1).a: $(call objs,$(1))
	@rm -f $$@
	$$(call say,ar $$@)ar rcs $$@ $$^
endef
$(foreach l,$(ROOMS),$(eval $(call library,$(l))))

$(BUILD)/duet: $(patsubst %.c,$(BUILD)/%.o,$(PROGRAM)) $(E) $(D) $(C) $(M)
	@tests/layers.sh includes && tests/layers.sh calls $(BUILD)
	$(call say,ld $@)$(CC) $^ $(LDALL) $(call pkglibs,$(PKGS)) -lm -o $@

# ---- talk ----
.PHONY: chat deps deps-test
chat: deps
	@$(MAKE) --no-print-directory -s all
	@$(BUILD)/duet chat

# Install what is missing: through apt on Debian and its kin; elsewhere say what is needed and stop.
define ensure
	@missing=; command -v $(CC) >/dev/null && command -v $(PKG_CONFIG) >/dev/null && $(PKG_CONFIG) --exists $(1) || missing=1; \
	if [ -n "$$missing" ]; then \
	  if command -v apt-get >/dev/null; then \
	    as=; [ "$$(id -u)" = 0 ] || as=sudo; \
	    echo "Installing with apt: $(2)"; \
	    { $$as apt-get -q update && $$as env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $(2); } >&2 || exit 1; \
	  else \
	    echo "Duet needs a C compiler, pkg-config and these libraries with their headers: $(1)." >&2; \
	    echo "Their Debian packages are: $(2)" >&2; exit 1; \
	  fi; \
	fi
endef
deps:
	$(call ensure,$(PKGS),$(DEBIAN))
deps-test:
	$(call ensure,$(PKGS) cmocka,$(DEBIAN) $(DEBIAN_TEST))

# ---- tests: tests/<room>/test_*.c are cmocka programs that link their room and what is below; tests/e2e/*.sh run the program ----
UNITS  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/*/test_*.c))
SCRIPTS := $(wildcard tests/e2e/*.sh)
define unit
$(BUILD)/tests/$(1)/%: $(BUILD)/tests/$(1)/%.o $(LINK_$(1))
	$$(call say,ld $$@)$$(CC) $$< $(LINK_$(1)) $$(LDALL) $$(call pkglibs,cmocka $(PKGS_$(1))) -lm -o $$@
endef
$(foreach l,$(ROOMS),$(eval $(call unit,$(l))))
.SECONDARY:

.PHONY: test unit e2e
test: deps-test
	@$(MAKE) --no-print-directory -j2 unit-programs all
	@tests/run.sh $(BUILD) $(UNITS) $(SCRIPTS)
.PHONY: unit-programs
unit-programs: $(UNITS)

# The whole suite under the sanitizers; and the unit tests under valgrind.
.PHONY: asan valgrind
asan: deps-test
	@$(MAKE) --no-print-directory -j2 BUILD=$(BUILD)/asan CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" unit-programs all
	@tests/run.sh $(BUILD)/asan $(patsubst $(BUILD)/%,$(BUILD)/asan/%,$(UNITS)) $(SCRIPTS)
valgrind: deps-test
	@$(MAKE) --no-print-directory -j2 BUILD=$(BUILD)/valgrind CFLAGS="-O1 -g" unit-programs all
	@DUET_TEST_WRAP="valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite" \
	  tests/run.sh $(BUILD)/valgrind $(patsubst $(BUILD)/%,$(BUILD)/valgrind/%,$(UNITS))

# The matrix products of a 64-bit ARM processor, bit for bit those of every other: cross-compiled, run by an emulator.  Needs gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross and qemu-user-static.
ARM_CC   ?= aarch64-linux-gnu-gcc
ARM_RUN  ?= qemu-aarch64-static -L /usr/aarch64-linux-gnu
ARM_DIR  := $(BUILD)/arm
.PHONY: check-arm
check-arm:
	@mkdir -p $(ARM_DIR)/include
	@ln -sfn /usr/include/sodium.h $(ARM_DIR)/include/sodium.h && ln -sfn /usr/include/sodium $(ARM_DIR)/include/sodium
	$(call say,cc $(ARM_DIR)/test_linear)$(ARM_CC) -std=c11 -D_DEFAULT_SOURCE -O2 -g -ffp-contract=off -fno-math-errno -fopenmp $(WARN) \
	  -ffunction-sections -Wl,--gc-sections -I. -Itests/cross -I$(ARM_DIR)/include tests/models/test_linear.c models/linear*.c models/gpt2_file.c \
	  models/gguf.c models/base.c -lm -o $(ARM_DIR)/test_linear
	OMP_WAIT_POLICY=passive $(ARM_RUN) $(ARM_DIR)/test_linear | tee $(ARM_DIR)/out && grep -q 'neon passed' $(ARM_DIR)/out

# The kernels for AVX-512 and AVX-VNNI on a processor that has only AVX2: their instructions are replaced by what the manual says of them.
X86_DIR := $(BUILD)/x86
.PHONY: check-x86
check-x86: $(M)
	@mkdir -p $(X86_DIR)
	$(call say,cc $(X86_DIR)/test_linear)$(CC) $(ALLFLAGS) -O0 -g0 -mavx2 -mfma -mf16c -Itests/cross/x86 models/linear_x86.c models/linear_block_x86.c \
	  tests/models/test_linear.c $(M) $(LDFLAGS) $(RPATH) $(call pkglibs,cmocka $(PKGS_models)) -lm -o $(X86_DIR)/test_linear
	$(X86_DIR)/test_linear | tee $(X86_DIR)/out && for p in avx-vnni avx512 avx512-vnni; do grep -q "path $$p passed" $(X86_DIR)/out || exit 1; done

# The golden vectors that are too large for this repository, where a copy of them is at hand.
FIXTURES ?= ../shared/fixtures
.PHONY: check-fixtures
check-fixtures: deps-test
	@$(MAKE) --no-print-directory -j2 $(BUILD)/tests/models/test_import
	@tests/full_import.sh $(BUILD) $(FIXTURES)/models

# How precise and how complete the rules are on the labelled sets (eval/safety/README.md).
.PHONY: check-rules
check-rules: deps
	@$(MAKE) --no-print-directory -s all
	@DUET=$(BUILD)/duet tests/rules_score.sh -g $(or $(wildcard eval/safety/*_test.tsv),$(wildcard eval/safety/*_dev.tsv))

# Size, speed and held-out perplexity of the shipped pair: full, pruned, quantized (models/weights/duet-zh.md).
.PHONY: sizes
sizes: deps
	@$(MAKE) --no-print-directory -s all
	@models/weights/sizes.sh $(BUILD)/duet $(BUILD)/sizes

# Mistakes planted in a copy of the sources: every one must turn a test red.
.PHONY: faults
faults: deps-test
	@tests/faults.sh $(BUILD)

# A store of EXCHANGES exchanges with 4 candidates each, filled and measured in a folder that goes away again.
.PHONY: big-store
EXCHANGES ?= 1000000
big-store: $(BUILD)/tests/dialog/big_store
	@dir=$$(mktemp -d "$${TMPDIR:-/tmp}/duet-big-XXXXXX") && trap 'rm -rf "$$dir"' EXIT && \
	  $< fill $$dir/big.db $(EXCHANGES) 4 corpus/scenes/zh/*.scene && ls -l $$dir/big.db && $< measure $$dir/big.db 2000 4 corpus/scenes/zh/*.scene

# The shipped pairs once more, from the scenes and the texts that corpus/SOURCES.md names: TALK_ZH and TALK_EN, blank lines between
# dialogues.  Hours; the results go to MODELS_OUT, not over the shipped ones.
.PHONY: models
MODELS_OUT ?= $(BUILD)/models
models: deps
	@[ -n "$(TALK_ZH)$(TALK_EN)" ] || { echo "make models TALK_ZH=zh.txt TALK_EN=en.txt: name the running talk to train on (corpus/SOURCES.md); either alone will do" >&2; exit 1; }
	@$(MAKE) --no-print-directory -s all
	$(if $(TALK_ZH),models/weights/duet-zh.sh $(abspath $(BUILD))/duet $(abspath $(TALK_ZH)) $(abspath $(MODELS_OUT))/zh)
	$(if $(TALK_EN),models/weights/duet-en.sh $(abspath $(BUILD))/duet $(abspath $(TALK_EN)) $(abspath $(MODELS_OUT))/en)

# ---- install ----
SHARE := $(DESTDIR)$(PREFIX)/share/duet
.PHONY: install uninstall clean help
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/models/weights $(SHARE)/dialog/rules
	install -m 755 $(BUILD)/duet $(DESTDIR)$(PREFIX)/bin/duet
	install -m 644 models/weights/* $(SHARE)/models/weights/
	install -m 644 dialog/rules/*.rules $(SHARE)/dialog/rules/
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/duet
	rm -rf $(SHARE)
clean:
	rm -rf $(BUILD)

help:
	@printf '%s\n' \
	'make chat              install what is missing, build, talk' \
	'make test              install what is missing, build, run the whole suite' \
	'make                   build $(BUILD)/duet' \
	'make models TALK_ZH=…  train the shipped pairs once more (hours; needs the texts of corpus/SOURCES.md)' \
	'make install PREFIX=…  program to PREFIX/bin, models and rules to PREFIX/share/duet' \
	'make asan              the suite under AddressSanitizer and UBSan' \
	'make valgrind          the unit tests under valgrind' \
	'make check-arm         the matrix products of 64-bit ARM, cross-compiled and emulated' \
	'make check-x86         the AVX-512 and AVX-VNNI kernels where the processor lacks them' \
	'make faults            plant mistakes in a copy of the sources: each must turn a test red' \
	'make check-fixtures    every reference checkpoint, where they are at hand (FIXTURES=DIR)' \
	'make big-store         fill a store with EXCHANGES=1000000 exchanges and measure it' \
	'make sizes             prune and quantize the shipped pair, print size, speed and perplexity of each' \
	'make check-rules       precision and recall of the rules on the labelled test sets' \
	'make clean             remove $(BUILD)/'

-include $(shell [ -d $(BUILD) ] && find $(BUILD) -name '*.d')
