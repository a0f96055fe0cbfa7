#!/bin/bash
# Real peers: clients and servers that others wrote, against the programs in
# build/ (BUILD= to change).  Each part has a time limit and ends with its
# sum; the last line is the sum of all.
cd "$(dirname "$0")" || exit 1
export BUILD="${BUILD:-build}"
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The first Python that has the package: Debian's need not be the first one.
python=''
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import websockets' 2>/dev/null; then
        python=$candidate
        break
    fi
done

miss() # name, why
{
    echo "SKIP $1: $2"
    skipped=$((skipped + 1))
}

part() # name seconds command...
{
    local name=$1 seconds=$2 line
    shift 2
    echo "-- $name"
    timeout -k 10 "$seconds" "$@" </dev/null >"$log" 2>&1
    local code=$?
    line=$(tail -n 1 "$log")
    # The sum is told once, at the end of all.
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]
    then
        sed '$d' "$log"
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
        if [ "$code" -eq 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ]; then
            return
        fi
    else
        cat "$log"
    fi
    echo "FAIL $name: ended with $code (124: out of time)"
    failed=$((failed + 1))
}

node_part() # name seconds file
{
    if [ -d node_modules/ws ]; then
        part "$1" "$2" node "$3"
    else
        miss "$1" 'no node_modules, run test/install-deps.sh'
    fi
}

node_part 'Node as the client' 300 ws_client.mjs
node_part 'Node as the server' 300 ws_server.mjs
if [ -n "$python" ]; then
    part 'Python as both' 200 "$python" py_peer.py
else
    miss 'Python as both' 'no python3 has websockets'
fi
node_part 'curl' 120 http.mjs
node_part 'Chromium' 400 browser.mjs
node_part 'rtnet.js' 200 rtnet_js.mjs
node_part 'rtnet.js over bad lines' 400 rtnet_chat.mjs
node_part 'restart' 200 restart.mjs
node_part 'cluster' 200 cluster.mjs

# TLS: certificates are made by each part itself.
if ! (cd ../.. && [ -x "$BUILD/secure" ]); then
    miss 'TLS' 'built without mbedTLS, run test/install-deps.sh'
elif ! command -v openssl >/dev/null; then
    miss 'TLS' 'there is no openssl, run test/install-deps.sh'
else
    node_part 'TLS: openssl and curl' 120 tls_cli.mjs
    node_part 'TLS: Node as both' 200 tls_node.mjs
    if [ -n "$python" ]; then
        part 'TLS: Python as both' 120 "$python" py_tls.py
    else
        miss 'TLS: Python as both' 'no python3 has websockets'
    fi
    node_part 'TLS: Chromium' 200 tls_browser.mjs
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
