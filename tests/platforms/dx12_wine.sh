#!/bin/sh
# The tests of kernels, models and guards (`trust`) on DX12, on Debian 12 without Windows and without a GPU: as Windows programs under
# Wine, whose Direct3D 12 runs on Vulkan.
#
#   sh tests/platforms/dx12_wine.sh [FILTER..]      all of the tests, or those whose names contain one of these
#
# Installs  gcc-mingw-w64-x86-64-win32 (the linker), wine, wine64, xvfb, libvulkan1; libgit2-1.5 and libllvm22 for Debian's Rust
# Unpacks   Debian's Rust with the source of its standard library, which is built for Windows; Mesa 25 of Debian's backports, since on
#           22.3 Wine's Direct3D gives wrong results; FXC, Microsoft's shader compiler (PyPI: kivy-deps.angle)
#
# Wine stops at shader model 5.1, so what needs 6.0 or later is not run: subgroups and f16.
set -eu
cd "$(dirname "$0")/../.."
. ./examples/prepare.sh
. ./tests/platforms/common.sh
install_packages gcc-mingw-w64-x86-64-win32 wine wine64 xvfb xauth libvulkan1 libgit2-1.5 libllvm22
unpack bookworm-security rust rustc-web cargo-web rust-web-src libstd-rust-web-1.96 libstd-rust-web-dev
windows_dll kivy-deps.angle==0.5.0 d3dcompiler_47.dll
mesa_beside

target=x86_64-pc-windows-gnu
# As fast as in a release where the plain loops run that the GPU is compared with; without what only a debugger reads.
LD_LIBRARY_PATH="$WORK/rust/usr/lib/x86_64-linux-gnu" RUSTC="$WORK/rust/usr/bin/rustc" RUSTC_BOOTSTRAP=1 \
    CARGO_TARGET_DIR="$WORK/windows" CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_DEBUG=0 \
    "$WORK/rust/usr/bin/cargo" test --release --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,test --no-run \
    --test kernels --test models --test trust

# Beside the programs: Windows looks for libraries there.
programs="$WORK/windows/$target/release/deps"
cp "$WORK/dll/d3dcompiler_47.dll" "$programs"
# Wine before version 10 lacks the library that Rust's own takes random bytes from.
x86_64-w64-mingw32-gcc -O1 -shared -o "$programs/bcryptprimitives.dll" -x c - -ladvapi32 <<END
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T size) { return RtlGenRandom(bytes, size); }
END

export WGPU_BACKEND=dx12 WGPU_DX12_COMPILER=fxc VK_DRIVER_FILES="$WORK/mesa/driver.json"
export LD_LIBRARY_PATH="$WORK/mesa/usr/lib/x86_64-linux-gnu"
# Descriptors are made for what a shader binds. Else Wine's Direct3D makes a million of each kind as it opens a device, and lavapipe holds
# 256 bytes for each: 10 GB and half a minute.
export VKD3D_CONFIG=virtual_heaps
prepare_wine wine-display
for test in kernels models trust; do
    program="$(find "$programs" -name "$test-*.exe" -exec ls -t {} + | head -n 1)"
    attempt "DX12 under Wine, $test" xvfb-run --auto-servernum -- "$wine" "$program" "$@"
done
conclude
