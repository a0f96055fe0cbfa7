# rtnet.  make all | test | check | ci | coverage | mutate | nightly | report |
# bench | bench-peers | demo | docs | clean | shared | install | uninstall |
# dist | size
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

# Elsewhere, with GNU make, all is the same but for the programs that ask Linux
# for what it has alone (epoll, timerfd, accept4).
UNAME := $(shell uname -s)
ifneq ($(UNAME),Linux)
PROGRAMS := $(filter-out rtload limit memory storm rooms_server restart, \
              $(PROGRAMS))
endif

all: $(BUILD)/librtnet.a $(PROGRAMS:%=$(BUILD)/%)

$(BUILD):
	mkdir -p $@

# Other flags than before, TLS or none: all is compiled anew.
$(BUILD)/flags: always | $(BUILD)
	@echo '$(CC) $(FLAGS)' | cmp -s - $@ || echo '$(CC) $(FLAGS)' >$@

$(BUILD)/%.o: %.c rtnet.h rtnet_internal.h $(BUILD)/flags
	$(CC) $(FLAGS) -c $< -o $@

$(BUILD)/librtnet.a: $(OBJ)
	$(AR) rcs $@ $(OBJ)

# What the header says.  Before 1.0 a minor version may change the ABI, so it is
# in the name that programs ask for.
VERSION := $(shell sed -n 's/^.define RT_VERSION_[A-Z]* //p' rtnet.h | \
             paste -sd. -)
MINOR = $(basename $(VERSION))
SO = librtnet.so
SONAME = $(SO).$(MINOR)
SOFILE = $(SO).$(VERSION)
SOFLAGS = -shared -Wl,-soname,$(SONAME)
ifeq ($(UNAME),Darwin)
SO = librtnet.dylib
SONAME = librtnet.$(MINOR).dylib
SOFILE = librtnet.$(VERSION).dylib
SOFLAGS = -dynamiclib -Wl,-install_name,$(LIBDIR)/$(SONAME)
endif
shared: $(BUILD)/$(SO)

$(BUILD)/pic/%.o: %.c rtnet.h rtnet_internal.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -fPIC -c $< -o $@

$(BUILD)/$(SO): $(LIB:%=$(BUILD)/pic/%.o)
	$(CC) $(CFLAGS) $(LDFLAGS) $(SOFLAGS) $^ $(LIBS) -o $(BUILD)/$(SOFILE)
	ln -sf $(SOFILE) $(BUILD)/$(SONAME)
	ln -sf $(SONAME) $@

# PREFIX=/usr, DESTDIR=stage for packagers; what install puts there, uninstall
# takes away.
PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
INSTALLED = $(INCLUDEDIR)/rtnet.h $(LIBDIR)/pkgconfig/rtnet.pc \
            $(addprefix $(LIBDIR)/,librtnet.a $(SO) $(SONAME) $(SOFILE))

install: $(BUILD)/librtnet.a shared
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 rtnet.h $(DESTDIR)$(INCLUDEDIR)
	install -m 644 $(BUILD)/librtnet.a $(DESTDIR)$(LIBDIR)
	install -m 755 $(BUILD)/$(SOFILE) $(DESTDIR)$(LIBDIR)
	ln -sf $(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(SO)
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
	    -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@LIBS@|$(LIBS)|' rtnet.pc.in \
	    >$(DESTDIR)$(LIBDIR)/pkgconfig/rtnet.pc

uninstall:
	rm -f $(INSTALLED:%=$(DESTDIR)%)

# The whole library as one header and one source, for who wants to copy only
# that.  TLS sleeps in it until RT_TLS_MBEDTLS is defined.
dist: $(BUILD)/dist/rtnet.h $(BUILD)/dist/rtnet_all.c

$(BUILD)/dist/rtnet.h: rtnet.h
	@mkdir -p $(@D)
	cp rtnet.h $@

$(BUILD)/dist/rtnet_all.c: rtnet_internal.h LICENSE $(LIB:%=%.c)
	@mkdir -p $(@D)
	@echo 'one file of $^'
	@{ echo "/* rtnet $(VERSION) in one file, made by make dist."; \
	   sed -e 's/^/ * /' -e 's/ *$$//' LICENSE; echo ' */'; \
	   cat rtnet_internal.h; \
	   for file in $(LIB:%=%.c); do \
	       echo; sed '/^.include "rtnet_internal.h"/d' $$file; \
	   done; } >$@

# Bytes of each file at -Os.
size:
	@CC='$(CC)' sh test/size.sh $(LIB:%=%.c)

RTLOAD = $(addprefix bench/,rtload.c rtload_result.c rtload_share.c client.c \
           drive.c line.c wire.c)
$(BUILD)/rtload: $(RTLOAD) $(wildcard bench/*.h) $(BUILD)/flags
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

# The reference, from the header: build/docs/rtnet.html and the man page
# rtnet.3.  Needs Python 3 and lowdown.
docs:
	python3 test/docs.py rtnet.h $(BUILD)/docs

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

.PHONY: all demo docs test check ci coverage prove mutate nightly report fuzz \
        fuzz-afl bench bench-peers clean shared install uninstall dist size \
        always
