#!/bin/sh
# Every shader in Chromium's WebGPU, on Debian 12 without a GPU: compiled by Tint, a WGSL compiler of its own, and run by SwiftShader on
# inputs whose results are known. Installs chromium. Another browser: `MINILM_BROWSER=google-chrome sh tests/platforms/webgpu_chromium.sh`.
#
# This is about the shaders, not about the crate in a browser: it waits for the GPU where a browser lets nothing wait.
set -eu
cd "$(dirname "$0")/../.."
. ./examples/prepare.sh
. ./tests/platforms/common.sh
WGPU_BACKEND=noop prepare # no driver is needed
[ -n "${MINILM_BROWSER:-}" ] || install_packages chromium
export MINILM_BROWSER="${MINILM_BROWSER:-chromium}"

test="cargo test --release --all-features --test browser"
$test --no-run
# shellcheck disable=SC2086
attempt WebGPU $test -- --nocapture
grep -E "in Mozilla|forms compiled" "$WORK/WebGPU.log"
conclude
