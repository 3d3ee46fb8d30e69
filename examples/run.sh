#!/bin/sh
# The main job by one command, on a machine with nothing but Rust: sentences in several languages become vectors on the GPU, and are
# compared and searched by meaning, with the model in examples/models. Arguments go to the search:
#
#   sh examples/run.sh
#   sh examples/run.sh "how do I bake bread?"
set -eu
cd "$(dirname "$0")/.."
. ./examples/prepare.sh
prepare

# Once, with its progress on standard error; with the features of the tests, so that they share what is compiled.
cargo build --release --features cli --example embed --example search

printf '\n== sentences to vectors: cargo run --release --example embed\n'
cargo run --release --quiet --features cli --example embed
printf '\n== search by meaning: cargo run --release --example search\n'
cargo run --release --quiet --features cli --example search -- "$@"
