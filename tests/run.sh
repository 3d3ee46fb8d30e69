#!/bin/sh
# The whole test suite by one command, on a machine with nothing but Rust. Arguments go to `cargo test`:
#
#   sh tests/run.sh                        everything
#   sh tests/run.sh --test checkpoint      one file of tests
#   sh tests/run.sh -- --nocapture         with what the tests print
#
# tests/README.md says what there is, and which variables the tests honour.
set -eu
cd "$(dirname "$0")/.."
. ./examples/prepare.sh
prepare

set -x
exec cargo test --release --all-features "$@"
