# shellcheck shell=bash
# Fetches the programs that check what the compiler does not. Sourced by scripts/test and scripts/test-http.
#
# Each function fetches one version of a program from its registry, unless it is there already, and prints the folder
# with its commands. If that fails, standard error says why.
#
# Invariants:
#  - Nothing is installed: each program and version has a folder in a cache that all clones share.
#  - A folder is used only when it is complete, and one download at a time fills it.

tools=${XDG_CACHE_HOME:-${HOME:?is not set, nor is XDG_CACHE_HOME}/.cache}/coupon-tools
readonly tools

# A program from PyPI with its dependencies, in a Python environment of its own.
python_tool() { # NAME==VERSION
  fetched "python-${1/==/-}" bin into_python "$1"
}

into_python() { # NAME==VERSION folder
  # Only packages that are built already: building one may download a program from anywhere.
  python3 -m venv "$2" && "$2/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$1"
}

# A program from npm with its dependencies.
node_tool() { # NAME@VERSION
  fetched "node-${1//[@\/]/-}" node_modules/.bin npm install --silent --no-fund --no-audit --ignore-scripts "$1" --prefix
}

# A program from the Rust registry, compiled here; this takes minutes, once.
cargo_tool() { # NAME VERSION
  fetched "cargo-$1-$2" bin cargo install --quiet --locked --version "$2" "$1" --root
}

# Has a command fill a folder of the cache; the command gets the folder as its last argument.
fetched() { # folder commands command...
  local home=$tools/$1 commands=$2
  shift 2
  mkdir -p "$home" || return
  (
    flock 9
    [[ -e $home/COMPLETE ]] && exit
    # Left over from a download that was cut off.
    find "$home" -mindepth 1 ! -name LOCK -delete
    "$@" "$home" >&2 9>&- && touch "$home/COMPLETE"
  ) 9>"$home/LOCK" || return
  echo "$home/$commands"
}
