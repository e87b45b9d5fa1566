#!/bin/sh
# Prints -race where Go's race detector works, and says why on stderr where it doesn't: it needs cgo, so a C compiler
# with its headers, and not every platform has it. The only sure way to know is to build a program with it and run it.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo 'package main; func main() {}' >"$dir/main.go"

compiler=$(go env CC)
if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
	echo "no C compiler: running without the race detector" >&2
elif problem=$(go build -race -o "$dir/main" "$dir/main.go" 2>&1) && problem=$("$dir/main" 2>&1); then
	echo -race
else
	echo "the race detector does not work here, running without it: $problem" | head -n 3 >&2
fi
