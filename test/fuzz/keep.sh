#!/bin/sh
# Keeps what fuzzing found.  Usage: keep.sh DIRECTORY NAME...
# Of the inputs in DIRECTORY/NAME those go to test/corpus/NAME that reach what
# none there does, the shortest first, while there are at most 100 files of
# 100,000 bytes.
dir=$1
shift

keep() # name
{
    corpus=test/corpus/$1
    new=$(mktemp -d)
    cp "$corpus"/* "$new"
    "$dir/fuzz_$1" -merge=1 "$new" "$dir/$1" >"$dir/$1.merge.log" 2>&1
    for file in $(ls -Sr "$new"); do
        size=$(cat "$corpus"/* "$new/$file" | wc -c)
        [ "$(ls "$corpus" | wc -l)" -lt 100 ] && [ "$size" -lt 100000 ] || break
        case $file in
        seed-* | found-* | regression-*) ;;
        *) cp "$new/$file" "$corpus/found-$(echo "$file" | cut -c 1-12)" ;;
        esac
    done
    rm -rf "$new"
    echo "$1: $(ls "$corpus" | wc -l) files, $(cat "$corpus"/* | wc -c) bytes"
}

for name in "$@"; do
    keep "$name"
done
