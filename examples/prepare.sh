# shellcheck shell=sh
# What tests/run.sh, examples/run.sh and .ci/run do before anything else; they source this file in the repository root.
#
#   prepare    finds cargo; on Linux also a Vulkan driver: where there is none it installs Mesa's, which runs on any processor
#
# Standard output is left to the caller's results.

say() { printf '%s\n' "$*" >&2; }

prepare() {
    if ! command -v cargo >/dev/null 2>&1; then
        PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
        export PATH
    fi
    if ! command -v cargo >/dev/null 2>&1; then
        say "error: cargo was not found. Install Rust from https://rustup.rs and run this again."
        return 1
    fi
    # macOS brings Metal and Windows brings DX12: nothing to install there.
    [ "$(uname -s)" = Linux ] || return 0

    if [ -z "${XDG_RUNTIME_DIR:-}" ]; then # the Vulkan loader and Mesa warn where it is not set
        XDG_RUNTIME_DIR="$PWD/target/xdg-runtime"
        mkdir -p "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR" || return 1
        export XDG_RUNTIME_DIR
    fi
    case ",${WGPU_BACKEND:-vulkan}," in
        *vulkan* | *,vk,*) vulkan_driver_exists || install_vulkan_driver ;;
        *) ;; # the caller has asked for another backend
    esac
}

# The loader's library, and a driver: one that the caller names, or a manifest in one of the folders that the loader reads.
vulkan_driver_exists() {
    vulkan_loader_exists || return 1
    [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
    for folder in /etc /usr/local/share /usr/share /run/opengl-driver/share "${XDG_DATA_HOME:-${HOME:-}/.local/share}"; do
        for manifest in "$folder"/vulkan/icd.d/*.json; do
            [ ! -e "$manifest" ] || return 0
        done
    done
    return 1
}

vulkan_loader_exists() {
    for ldconfig in ldconfig /sbin/ldconfig /usr/sbin/ldconfig; do # not on every user's PATH
        if command -v "$ldconfig" >/dev/null 2>&1; then
            ! "$ldconfig" -p 2>/dev/null | grep -q 'libvulkan\.so\.1' || return 0
        fi
    done
    search="${LD_LIBRARY_PATH:-}:/usr/local/lib:/usr/lib:/usr/lib64:/lib:/lib64:/run/opengl-driver/lib"
    while [ -n "$search" ]; do
        folder="${search%%:*}"
        search="${search#"$folder"}"
        search="${search#:}"
        for library in "$folder"/libvulkan.so.1 "$folder"/*-linux-gnu*/libvulkan.so.1; do
            [ ! -e "$library" ] || return 0
        done
    done
    return 1
}

install_vulkan_driver() {
    if command -v apt-get >/dev/null 2>&1; then
        install="apt-get install --yes --no-install-recommends mesa-vulkan-drivers libvulkan1"
        known="apt-cache show mesa-vulkan-drivers libvulkan1"
        refresh="apt-get update"
    elif command -v dnf >/dev/null 2>&1; then
        install="dnf install --assumeyes mesa-vulkan-drivers vulkan-loader"
        known=true # dnf fetches its lists by itself
        refresh=true # nothing to do
    elif command -v pacman >/dev/null 2>&1; then
        install="pacman -S --noconfirm --needed vulkan-swrast vulkan-icd-loader"
        known="pacman -Si vulkan-swrast vulkan-icd-loader"
        refresh="pacman -Sy --noconfirm"
    else
        say "error: no Vulkan driver was found, and none of apt-get, dnf and pacman to install one."
        say "Install a Vulkan driver for your GPU, or Mesa's lavapipe, and the Vulkan loader (libvulkan.so.1)."
        return 1
    fi
    by_hand="$install"
    [ "$refresh" = true ] || by_hand="$refresh && $install"
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            say "error: no Vulkan driver was found, and only root can install one. Run this as root, then try again:"
            say "    $by_hand"
            return 1
        fi
        sudo="sudo -n" # never waits for a password
        by_hand="sudo sh -c '$by_hand'"
    fi
    say "No Vulkan driver was found: installing Mesa's, which runs on any processor"
    say "    ${sudo:+$sudo }$install"
    # A bare container has no package lists, and old ones name files that are gone: then they are fetched first, or again.
    # The commands are split into words on purpose.
    # shellcheck disable=SC2086
    $known >/dev/null 2>&1 || as_installer $refresh || say "The package lists could not be fetched; trying without."
    # shellcheck disable=SC2086
    if ! as_installer $install && ! { as_installer $refresh && as_installer $install; }; then
        say "error: Mesa's Vulkan driver could not be installed (see above). Run this yourself, then try again:"
        say "    $by_hand"
        return 1
    fi
    if ! vulkan_driver_exists; then
        say "error: the packages are installed, but no Vulkan driver was found in the usual places."
        say "If the driver is elsewhere, set VK_DRIVER_FILES to its manifest (a .json file) and run this again."
        return 1
    fi
    say "Mesa's Vulkan driver is installed."
}

# shellcheck disable=SC2086
as_installer() {
    $sudo env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >&2
}
