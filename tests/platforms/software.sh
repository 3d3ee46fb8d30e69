#!/bin/sh
# The tests of kernels, models and guards on each of Mesa's software adapters, and a table of what passed. On Debian 12, without a GPU:
#
#   sh tests/platforms/software.sh                 all of them
#   sh tests/platforms/software.sh vulkan-4 gl     some of: vulkan-4 vulkan-8 vulkan-16 gl mesa25-4 mesa25-8 mesa25-16
#
# The number is that of lanes in a subgroup: lavapipe makes them of LP_NATIVE_VECTOR_WIDTH bits. `gl` is llvmpipe through EGL. It
# installs mesa-vulkan-drivers, libegl1 and libgl1-mesa-dri; `mesa25` unpacks Mesa 25 of Debian's backports beside it.
set -eu
cd "$(dirname "$0")/../.."
. ./examples/prepare.sh
. ./tests/platforms/common.sh
install_packages mesa-vulkan-drivers libvulkan1 libegl1 libgl1-mesa-dri
prepare

tests="cargo test --release --all-features --no-fail-fast --test kernels --test models --test trust"
$tests --no-run

[ $# -gt 0 ] || set -- vulkan-4 vulkan-8 vulkan-16 gl mesa25-4 mesa25-8 mesa25-16
for adapter in "$@"; do
    lanes="${adapter##*-}"
    case "$adapter" in
        vulkan-4 | vulkan-8 | vulkan-16)
            # shellcheck disable=SC2086
            attempt "$adapter" env WGPU_BACKEND=vulkan "LP_NATIVE_VECTOR_WIDTH=$((32 * lanes))" $tests
            ;;
        mesa25-4 | mesa25-8 | mesa25-16)
            mesa_beside
            # shellcheck disable=SC2086
            attempt "$adapter" env WGPU_BACKEND=vulkan "LP_NATIVE_VECTOR_WIDTH=$((32 * lanes))" "VK_DRIVER_FILES=$WORK/mesa/driver.json" \
                "LD_LIBRARY_PATH=$WORK/mesa/usr/lib/x86_64-linux-gnu" $tests
            ;;
        gl)
            # One at a time: wgpu gives up waiting for the GL context where another thread has it for seconds.
            # shellcheck disable=SC2086
            attempt gl env WGPU_BACKEND=gl RUST_TEST_THREADS=1 $tests
            ;;
        *)
            say "error: $adapter is none of vulkan-4, vulkan-8, vulkan-16, gl, mesa25-4, mesa25-8 and mesa25-16."
            exit 2
            ;;
    esac
done
conclude
