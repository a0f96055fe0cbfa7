# rtnet.  make all | test | check | ci | coverage | mutate | nightly | report |
# bench | bench-peers | demo | clean
CC ?= cc
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -pedantic -Wshadow -Wconversion -Wstrict-prototypes \
       -Wmissing-prototypes
BUILD = build
PORT ?= 9000
FLAGS = -std=c99 $(WARN) -I. $(CFLAGS)
# TLS=mbedtls: wss:// and tls://; what is linked needs LIBS.
ifeq ($(TLS),mbedtls)
FLAGS += -DRT_TLS_MBEDTLS
LIBS = -lmbedtls -lmbedx509 -lmbedcrypto
endif

LIB = rtnet ws session group ratelimit tls
OBJ = $(LIB:%=$(BUILD)/%.o)
PROGRAMS = echo_server fanout_server rooms_server rtload limit memory storm \
           scale_sim echo chat arena restart
# One example needs hiredis: it is built where that is installed.
HIREDIS := $(shell $(CC) -E -include hiredis/async.h -x c /dev/null \
             >/dev/null 2>&1 && echo cluster)
PROGRAMS += $(HIREDIS)

all: $(BUILD)/librtnet.a $(PROGRAMS:%=$(BUILD)/%)

$(BUILD):
	mkdir -p $@

$(BUILD)/%.o: %.c rtnet.h rtnet_internal.h | $(BUILD)
	$(CC) $(FLAGS) -c $< -o $@

$(BUILD)/librtnet.a: $(OBJ)
	$(AR) rcs $@ $(OBJ)

RTLOAD = $(addprefix bench/,rtload.c rtload_result.c rtload_share.c client.c \
           drive.c line.c wire.c)
$(BUILD)/rtload: $(RTLOAD) $(wildcard bench/*.h) | $(BUILD)
	$(CC) $(FLAGS) $(RTLOAD) -o $@ $(LIBS) -lm

STORM = $(addprefix bench/storm,.c _result.c _picture.c)
$(BUILD)/storm: $(STORM) $(BUILD)/librtnet.a $(wildcard bench/*.h)
	$(CC) $(FLAGS) $(STORM) $(BUILD)/librtnet.a -o $@ $(LIBS) -lm

$(BUILD)/scale_sim: bench/scale_sim.c $(wildcard bench/*.h) | $(BUILD)
	$(CC) $(FLAGS) $< -o $@ -lm

$(BUILD)/crossing: bench/crossing.c $(BUILD)/librtnet.a $(wildcard bench/*.h)
	$(CC) $(FLAGS) $< $(BUILD)/librtnet.a -o $@ $(LIBS) -lpthread

$(BUILD)/limit: bench/limit.c $(wildcard bench/*.h) | $(BUILD)
	$(CC) $(FLAGS) $< -o $@

$(BUILD)/%: bench/%.c $(BUILD)/librtnet.a $(wildcard bench/*.h)
	$(CC) $(FLAGS) $< $(BUILD)/librtnet.a -pthread -o $@ $(LIBS)

$(BUILD)/%: examples/%.c $(BUILD)/librtnet.a
	$(CC) $(FLAGS) $< $(BUILD)/librtnet.a -o $@ $(LIBS)

$(BUILD)/cluster: examples/cluster.c $(BUILD)/librtnet.a
	$(CC) $(FLAGS) $< $(BUILD)/librtnet.a -o $@ -lhiredis $(LIBS)

demo: $(BUILD)/arena
	$(BUILD)/arena $(PORT)

test check:
	@$(MAKE) --no-print-directory -j2 all
	@$(MAKE) --no-print-directory -j2 -f test/Makefile $@ BUILD=$(BUILD)

# All of it, with what is installed: the same steps as in a fresh clone.
ci:
	bash .ci/run --no-install

# What can be proved of the pure code, for all inputs up to a size; needs
# frama-c-base, and ten minutes.
prove:
	bash test/prove/run.sh

# What the tests run of the library: build/coverage/index.html.
coverage:
	python3 test/coverage.py --gaps

# Do the tests notice small faults?  COUNT=300 of them, by a seed: SEED=1.
COUNT = 300
SEED = 1
mutate:
	python3 test/mutate.py --count $(COUNT) --seed $(SEED)

# SECONDS=60 for each target, TARGETS="NAME..." for some: see test/fuzz/fuzz.h.
fuzz fuzz-afl:
	@$(MAKE) --no-print-directory -j2 -f test/Makefile $@ BUILD=$(BUILD)

# The long run, in pieces that add up in build/nightly; 30 minutes at least
# count.
MINUTES = 30
JOBS = 1
nightly:
	python3 test/nightly.py --minutes $(MINUTES) --jobs $(JOBS)

# test/REPORT.md, from what the last runs of these left in build.
report:
	python3 test/report.py

# One peer is built where its library is installed.
LWS := $(shell $(CC) -E -include libwebsockets.h -x c /dev/null \
         >/dev/null 2>&1 && echo lws_server)

$(BUILD)/lws_server: bench/peers/lws_server.c bench/options.h | $(BUILD)
	$(CC) $(FLAGS) $< -o $@ -lwebsockets

# QUICK=1 for a minute, ROWS=echo100,idle for some of the rows.
bench: all
	python3 bench/bench.py --build $(BUILD)

bench-peers: all $(LWS:%=$(BUILD)/%)
	python3 bench/bench.py --build $(BUILD) --peers

clean:
	rm -rf $(BUILD)

.PHONY: all demo test check ci coverage prove mutate nightly report fuzz \
        fuzz-afl bench bench-peers clean
