#!/bin/sh
# Checks the translations of every shader by compilers of their languages, on Linux and without a GPU:
#
#   SPIR-V    spirv-val (Debian: spirv-tools)
#   GLSL      glslangValidator (Debian: glslang-tools)
#   HLSL      FXC and DXC (PyPI: kivy-deps.angle, onnxruntime-webgpu) in a small program under Wine (Debian: wine64, gcc-mingw-w64-x86-64-win32)
#
# FXC comes last and takes minutes. MSL is translated only: no package has a compiler of it. Without Wine: `sh tests/platforms/shader_compilers.sh native`.
set -eu
cd "$(dirname "$0")/../.."
. ./examples/prepare.sh
. ./tests/platforms/common.sh
WGPU_BACKEND=gl prepare # no driver is needed

install_packages spirv-tools glslang-tools
rm -rf "$WORK/shaders" && mkdir -p "$WORK/shaders"
MINILM_SHADER_COMPILERS=1 MINILM_SHADER_FOLDER="$WORK/shaders" cargo test --release --all-features --test shaders -- --nocapture
[ "${1:-}" != native ] || exit 0

install_packages wine64 gcc-mingw-w64-x86-64-win32
windows_dll kivy-deps.angle==0.5.0 d3dcompiler_47.dll
windows_dll onnxruntime-webgpu==1.27.0 dxcompiler.dll dxil.dll
x86_64-w64-mingw32-gcc -O1 -Wall -o "$WORK/dll/hlsl.exe" tests/platforms/hlsl.c
prepare_wine wine
"$wine" "$WORK/dll/hlsl.exe" dxc target/platforms/shaders
"$wine" "$WORK/dll/hlsl.exe" fxc target/platforms/shaders
