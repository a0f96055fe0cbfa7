#!/bin/sh
# Runs fuzz targets one after the other.  Usage:
#   run.sh libfuzzer|afl DIRECTORY SECONDS NAME...
# DIRECTORY holds the programs fuzz_NAME and afl_NAME, and gets for each NAME:
# NAME/ (inputs found so far), NAME-bad/ (findings) and NAME.log or
# NAME.afl.log, whose last line is
# "NAME: N executions, N s, N edges, N findings".
kind=$1 dir=$2 seconds=$3
shift 3
bad=0

# Inputs to begin with: those kept in the repository, those found before.
begin() # name
{
    mkdir -p "$dir/$1" "$dir/$1-bad"
    cp -n test/corpus/"$1"/* "$dir/$1" 2>/dev/null
}

count() # directory pattern
{
    find "$1" -name "$2" -type f 2>/dev/null | wc -l
}

libfuzzer() # name
{
    log=$dir/$1.log
    ASAN_OPTIONS=quarantine_size_mb=8 "$dir/fuzz_$1" \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 \
        -print_final_stats=1 -artifact_prefix="$dir/$1-bad/" \
        "$dir/$1" >"$log" 2>&1
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    found=$(count "$dir/$1-bad" '*')
    grep -A 12 -m 1 'ORACLE\|ERROR: \|runtime error' "$log"
}

stat_of() # file key
{
    sed -n "s/^$2 *: *\([0-9]*\).*/\1/p" "$1"
}

afl() # name
{
    log=$dir/$1.afl.log out=$dir/$1-afl
    rm -rf "$out"
    AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 \
    AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
        afl-fuzz -V "$seconds" -m none -t 5000 -i "$dir/$1" -o "$out" \
        -- "$dir/afl_$1" >"$log" 2>&1
    stats=$out/default/fuzzer_stats
    runs=$(stat_of "$stats" execs_done)
    edges=$(stat_of "$stats" edges_found)
    found=$(($(count "$out/default/crashes" 'id*') +
        $(count "$out/default/hangs" 'id*')))
}

for name in "$@"; do
    begin "$name"
    since=$(date +%s)
    "$kind" "$name"
    echo "$name: ${runs:-0} executions, $(($(date +%s) - since)) s," \
        "${edges:-0} edges," \
        "${found:-1} findings" | tee -a "$log"
    [ "${found:-1}" = 0 ] && [ "${runs:-0}" -gt 0 ] || bad=1
done
exit $bad
