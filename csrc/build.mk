# Builds everything that is C: libraries, the node executable, the Python extensions, C tests.
#
#   make -f csrc/build.mk [targets] [OUT=build/release] [CC=gcc] [SAN=address,undefined]
#                         [PLANT=1] [PYTHON=python3] [WERROR=1]
#
# Targets: all (node + extensions), node, ext, ctests, lib, loads (for `make bench`), fuzz (with
# CC=clang SAN=address,undefined,fuzzer-no-link). setup.py calls this file, so there is one
# description of the build. Everything it writes is below $(OUT).

ifeq ($(origin CC),default)
CC := gcc
endif
OUT ?= build/release
PYTHON ?= python3
PKG_CONFIG ?= pkg-config
SAN ?=
PLANT ?=
WERROR ?=
OPT ?= -O2 -g

WARNINGS := -Wall -Wextra -Wshadow -Wconversion $(if $(WERROR),-Werror)
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(OPT) -fPIC -fvisibility=hidden -fno-strict-aliasing \
    -MMD -MP -Icsrc -I$(OUT)/gen $(WARNINGS) \
    $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
    $(if $(PLANT),-DDKV_PLANTS) $(CFLAGS)
LDFLAGS_ALL := $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)

CORE_DIRS := base ring model store wire member replica node sim
NET_DIRS := rpc host client
CORE_SRCS := $(foreach d,$(CORE_DIRS),$(wildcard csrc/$(d)/*.c))
NET_SRCS := $(foreach d,$(NET_DIRS),$(wildcard csrc/$(d)/*.c))
NODE_SRCS := $(wildcard node/*.c)
PY_COMMON_SRCS := $(filter-out csrc/py/core_% csrc/py/net_%,$(wildcard csrc/py/*.c))
PY_CORE_SRCS := $(wildcard csrc/py/core_*.c)
PY_NET_SRCS := $(wildcard csrc/py/net_*.c)
CTEST_SRCS := $(wildcard tests/c/test_*.c tests/c/bench_*.c)

PROTOS := $(wildcard proto/*.proto)
GRPC_PROTOS := $(wildcard proto/grpc/*/*/*.proto)
# Those that become C: the bytes of reflection/v1alpha are the same as those of v1.
CORE_GEN_SRCS := $(PROTOS:proto/%.proto=$(OUT)/gen/%.pb-c.c)
NET_GEN_SRCS := $(patsubst proto/%.proto,$(OUT)/gen/%.pb-c.c,\
    $(filter-out %/v1alpha/reflection.proto,$(GRPC_PROTOS)))
GEN_SRCS := $(CORE_GEN_SRCS) $(NET_GEN_SRCS)
GEN_HDRS := $(GEN_SRCS:.c=.h) $(OUT)/gen/dkv_version.h $(OUT)/gen/descriptors.inc

obj = $(patsubst %.c,$(OUT)/obj/%.o,$(1))
CORE_OBJS := $(call obj,$(CORE_SRCS)) $(CORE_GEN_SRCS:.c=.o)
NET_OBJS := $(call obj,$(NET_SRCS)) $(NET_GEN_SRCS:.c=.o)

CORE_LIBS := -lprotobuf-c -lcrypto -lpthread -lm
NET_LIBS := -lgrpc -lgpr $(CORE_LIBS)
# The node is linked with gRPC's archives, which costs 9 to 14 % less CPU than the shared libraries.
# Debian's archives are not position-independent, so the Python extensions cannot do the same.
GRPC_ARCHIVES := $(filter-out -ldl -lrt -latomic -lssl -lcrypto, \
    $(sort $(filter -l%,$(shell $(PKG_CONFIG) --static --libs grpc))))
NODE_LIBS := -Wl,-Bstatic -Wl,--start-group $(GRPC_ARCHIVES) -lprotobuf-c -lyaml -Wl,--end-group \
    -lstdc++ -Wl,-Bdynamic -lssl -lcrypto -latomic -lpthread -lm

# Python.h stands among the system's headers, where our stricter warnings do not apply.
PY_INCLUDE = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
PY_CFLAGS = -isystem $(PY_INCLUDE) -DPy_LIMITED_API=0x030B0000

LIBCORE := $(OUT)/libdkv-core.a
LIBNET := $(OUT)/libdkv-net.a
NODE := $(OUT)/bin/dkv-node
EXT := $(if $(PY_CORE_SRCS),$(OUT)/py/_core.abi3.so) $(if $(PY_NET_SRCS),$(OUT)/py/_net.abi3.so)
CTESTS := $(CTEST_SRCS:tests/c/%.c=$(OUT)/ctests/%)
FUZZERS := $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(wildcard tests/fuzz/*.c))
LOADS := $(patsubst tests/bench/%.c,$(OUT)/loads/%,$(wildcard tests/bench/*.c))

# A program or library appears under its name when it is whole. Otherwise what a build left that was
# killed while it linked would pass for it the next time.
link = $(CC) $(1) $(LDFLAGS_ALL) -o $@.new $^ $(2) && mv $@.new $@
archive = rm -f $@.new && $(AR) rcs $@.new $^ && mv $@.new $@

.PHONY: all lib node ext ctests loads fuzz
.SECONDARY:
all: node ext
lib: $(LIBCORE) $(LIBNET)
node: $(NODE)
ext: $(EXT)
ctests: $(CTESTS)
loads: $(LOADS)
fuzz: $(FUZZERS)

$(OUT)/gen/%.pb-c.c $(OUT)/gen/%.pb-c.h &: proto/%.proto
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; protoc-c --proto_path=proto --c_out=$(OUT)/gen proto/$*.proto

# The compiled form of all .proto files, as the elements of a C array, for server reflection.
$(OUT)/gen/descriptors.inc: $(PROTOS) $(GRPC_PROTOS)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; protoc-c --proto_path=proto --include_imports \
	    --descriptor_set_out=$(@:.inc=.bin) $^ && \
	    od -An -v -tx1 $(@:.inc=.bin) | sed 's/ \(..\)/0x\1,/g' > $@.new && mv $@.new $@

# DKV_VERSION, from the one place that states it.
$(OUT)/gen/dkv_version.h: dkv/_version.py
	@mkdir -p $(@D)
	@sed -n 's/^__version__ = \(.*\)$$/#define DKV_VERSION \1/p' $< > $@

# Generated code is not held to our warnings.
$(OUT)/gen/%.o: $(OUT)/gen/%.c $(GEN_HDRS)
	@echo "  $(@:$(OUT)/%=%)"; $(CC) $(CFLAGS_ALL) -w -c -o $@ $<

$(OUT)/obj/csrc/py/%.o: csrc/py/%.c | $(GEN_HDRS)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(CC) $(CFLAGS_ALL) $(PY_CFLAGS) -c -o $@ $<

$(OUT)/obj/%.o: %.c | $(GEN_HDRS)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(CC) $(CFLAGS_ALL) -c -o $@ $<

$(LIBCORE): $(CORE_OBJS)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(archive)

$(LIBNET): $(NET_OBJS)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(archive)

$(NODE): $(call obj,$(NODE_SRCS)) $(LIBNET) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,,$(NODE_LIBS))

$(OUT)/py/_core.abi3.so: $(call obj,$(PY_CORE_SRCS) $(PY_COMMON_SRCS)) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,-shared,$(CORE_LIBS))

$(OUT)/py/_net.abi3.so: $(call obj,$(PY_NET_SRCS) $(PY_COMMON_SRCS)) $(LIBNET) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,-shared,$(NET_LIBS))

$(OUT)/ctests/%: $(OUT)/obj/tests/c/%.o $(LIBNET) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,,$(NET_LIBS))

$(OUT)/loads/%: $(OUT)/obj/tests/bench/%.o $(LIBNET) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,,$(NET_LIBS))

FUZZED := $(OUT)/obj/node/config.o $(OUT)/obj/node/fields.o
$(OUT)/fuzz/%: $(OUT)/obj/tests/fuzz/%.o $(FUZZED) $(LIBCORE)
	@mkdir -p $(@D)
	@echo "  $(@:$(OUT)/%=%)"; $(call link,-fsanitize=fuzzer,$(CORE_LIBS) -lyaml)

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
