# shellcheck shell=bash
# Finds the programs of the servers, in the cache or installed on the machine. Sourced by scripts/services.
#
# Invariant: a folder of the cache is used only when it is complete.

cache=${XDG_CACHE_HOME:-${HOME:?is not set, nor is XDG_CACHE_HOME}/.cache}/coupon-servers
readonly cache
# Incremented when the way of unpacking changes, so that older folders of the cache are not used.
readonly recipe=1

# The name and the release of the Linux distribution.
distribution() {
  # shellcheck source=/dev/null
  (. /etc/os-release && echo "${ID:-unknown} ${VERSION_CODENAME:-unstable}") 2>/dev/null || echo "unknown unknown"
}

# The suite that a server's packages come from. Debian has MySQL in sid only.
suite_of() {
  local id codename
  read -r id codename <<<"$(distribution)"
  if [[ $1 == mysql && $id == debian ]]; then echo sid; else echo "$codename"; fi
}

# The folder of the cache that holds a server's programs.
cached_home() { echo "$cache/$1-$(suite_of "$1")-$(uname -m)-$recipe"; }

# Where a server's main program is, below its folder of the cache or below /.
program_path() {
  case $1 in
    mysql) echo usr/sbin/mysqld ;;
    mariadb) echo usr/sbin/mariadbd ;;
    redis) echo usr/bin/redis-server ;;
    rabbitmq) echo usr/lib/rabbitmq/bin/rabbitmq-server ;;
  esac
}

# Succeeds if a folder of the cache is complete: the file that is written last holds the number of the others.
is_whole() {
  local count
  read -r count _ 2>/dev/null <"$1/COMPLETE" || return 1
  [[ $(count_files "$1") == "$count" ]]
}

count_files() { find "$1" -mindepth 1 ! -name COMPLETE | wc -l; }

# Succeeds if a usable program is installed on the machine.
is_installed() {
  local program
  program=/$(program_path "$1")
  [[ -x $program ]] || return 1
  # A mysqld may be MariaDB under its old name, or older than SKIP LOCKED.
  [[ $1 != mysql ]] || [[ $("$program" --version 2>/dev/null) =~ Ver\ ([89]|[1-9][0-9])\.[0-9.]+ && ! $("$program" --version) =~ MariaDB ]]
}

# Prints the root of a server's programs: a folder of the cache, fetched if necessary, or "/" for installed programs.
home_of() {
  local home
  home=$(cached_home "$1")
  if is_whole "$home"; then
    echo "$home"
  elif fetch "$1" "$home" >&2; then
    echo "$home"
  elif is_installed "$1"; then
    say "$1: using the installed /$(program_path "$1")" >&2
    echo /
  else
    die "$1: not available; install $(package_hint "$1"), or set $(url_variable "${1/mariadb/mysql}") to your own server"
  fi
}

# The package to install on a machine where nothing can be fetched.
package_hint() {
  case $1 in
    mysql) echo "mysql-server >= 8.0 (or mariadb-server >= 10.6, for --mariadb)" ;;
    mariadb) echo "mariadb-server >= 10.6 (or mysql-server >= 8.0, without --mariadb)" ;;
    redis) echo "redis-server >= 7" ;;
    rabbitmq) echo "rabbitmq-server >= 3.10" ;;
  esac
}
# Sets the array "run_with" to a command prefix with which a program finds the libraries of its own folder.
set_run_with() { # home
  local libraries
  shopt -s nullglob
  local loaders=("$1"/{usr/,}lib/*-linux-gnu*/ld-linux*.so.*)
  shopt -u nullglob
  run_with=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TZ=UTC LC_ALL=C.UTF-8)
  [[ $1 != / ]] || return 0
  libraries=$(printf '%s:' "$1"/usr/lib/*-linux-gnu* "$1"/lib/*-linux-gnu*)
  if ((${#loaders[@]} > 0)); then
    # A newer C library comes with its own loader, and the programs must be started through it.
    run_with+=("${loaders[0]}" --library-path "${libraries%:}")
  else
    run_with+=("LD_LIBRARY_PATH=${libraries%:}")
  fi
}
