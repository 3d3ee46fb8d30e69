# shellcheck shell=sh
# What the scripts of this folder share; they source it in the repository root, after examples/prepare.sh. For Debian 12 or later.

WORK="$PWD/target/platforms"
mkdir -p "$WORK"

# install_packages PACKAGE..: installs those that are missing, and says which.
install_packages() {
    missing=""
    for package in "$@"; do
        dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "Installing from Debian:$missing"
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
    # shellcheck disable=SC2086
    as_installer apt-get update && as_installer apt-get install --yes --no-install-recommends $missing
}

# unpack RELEASE FOLDER PACKAGE..: unpacks Debian packages of another release into $WORK/FOLDER; nothing is installed.
unpack() {
    release="$1" folder="$WORK/$2"
    shift 2
    [ ! -e "$folder" ] || return 0
    say "Unpacking from Debian $release: $*"
    apt="$WORK/apt"
    rm -rf "$apt" && mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
    # Where this system fetches from; security updates have a place of their own.
    case "$release" in *-security) named=grep ;; *) named="grep -v" ;; esac
    # shellcheck disable=SC2016
    site="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | $named security | head -n 1)"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<END
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
END
    (export APT_CONFIG="$apt/apt.conf" && apt-get --quiet update && cd "$apt/packages" && apt-get --quiet download "$@") >&2
    for package in "$apt"/packages/*.deb; do dpkg -x "$package" "$folder.part"; done
    mv "$folder.part" "$folder"
}

# mesa_beside: Mesa 25 of Debian 12's backports as $WORK/mesa; its driver's manifest is $WORK/mesa/driver.json.
mesa_beside() {
    unpack bookworm-backports mesa mesa-vulkan-drivers libdrm2 libdrm-amdgpu1
    sed "s|\"library_path\": \"|&$WORK/mesa/usr/lib/x86_64-linux-gnu/|" \
        "$WORK"/mesa/usr/share/vulkan/icd.d/lvp_icd*.json >"$WORK/mesa/driver.json"
}

# windows_dll WHEEL==VERSION FILE..: takes files out of a Windows wheel of PyPI into $WORK/dll.
windows_dll() {
    wheel="$1"
    shift
    mkdir -p "$WORK/dll"
    [ ! -e "$WORK/dll/$1" ] || return 0
    say "Taking $* from PyPI's $wheel"
    rm -rf "$WORK/wheel" && mkdir -p "$WORK/wheel"
    python3 -m pip download --quiet --no-deps --only-binary :all: --platform win_amd64 --python-version 3.11 --dest "$WORK/wheel" "$wheel" >&2
    python3 -m zipfile -e "$WORK"/wheel/*.whl "$WORK/wheel"
    for file in "$@"; do find "$WORK/wheel" -name "$file" -exec cp {} "$WORK/dll" \;; done
}

# attempt NAME COMMAND..: runs the command and adds a line to the table: the tests that passed and failed. Its output goes to a log.
attempt() {
    name="$1" log="$WORK/$(printf '%s' "$1" | tr -c 'a-zA-Z0-9.' '-').log"
    shift
    say "=== $name (output: ${log#"$PWD/"})"
    begun="$(date +%s)" status=passed
    "$@" >"$log" 2>&1 || status=FAILED
    # `test result: ok. 12 passed; 0 failed; ..`, a line for each program
    counts="$(sed -n 's/^test result: [^0-9]*\([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log" | tr -d '\r' |
        awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed", passed, failed }')"
    [ "$status" = passed ] || { grep -E '^(test .* FAILED|error|thread .* panicked)' "$log" >&2 || tail -n 20 "$log" >&2; failed=yes; }
    table="$table$(printf '%-44s %-7s %s, %d s' "$name" "$status" "$counts" "$(($(date +%s) - begun))")
"
}

# conclude: prints the table; fails where anything failed.
conclude() {
    printf '%s' "$table"
    [ -z "${failed:-}" ]
}

# prepare_wine FOLDER: $wine then runs Windows programs, in $WORK/FOLDER and with Microsoft's shader compiler in place of Wine's. Programs
# in one folder share a desktop: where the first of them has no display, none has.
prepare_wine() {
    wine="$(command -v wine || command -v wine64 || echo /usr/lib/wine/wine64)"
    export WINEPREFIX="$WORK/$1" WINEDEBUG="${WINEDEBUG:--all}" WINEDLLOVERRIDES="mscoree,mshtml=;d3dcompiler_47=n"
}

failed="" table=""
