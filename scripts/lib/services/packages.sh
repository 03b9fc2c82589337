# shellcheck shell=bash
# Fetches the servers' Debian or Ubuntu packages with an apt state of its own. Sourced by scripts/services.
#
# Invariants:
#  - Nothing is installed: packages are unpacked into the cache that all clones share.
#  - A folder of the cache appears under its final name only when it is complete.
#  - One download at a time works on a folder of the cache.

: "${cache:?}"

# Downloads and unpacks a server's packages into the cache, once for all clones.
fetch() { # server home
  local program
  for program in apt-get apt-config dpkg dpkg-deb flock setsid; do
    command -v "$program" >/dev/null || {
      warn "$1: cannot be fetched without $program"
      return 1
    }
  done
  mkdir -p "$cache" || return 1
  (
    flock --nonblock 9 || { say "$1: waiting for another download to end" && flock 9; }
    # While we hold the lock, any other temporary folder is left over from a download that was cut off.
    rm -rf "$2".tmp.*
    is_whole "$2" && exit 0
    work=$(mktemp -d "$2.tmp.XXXXXX") || exit 1
    trap 'rm -rf "$work"' EXIT
    # The caller tests this function's result, and Bash does not stop at errors inside a tested command: hence "||".
    prepare_apt "$1" "$work" || exit 1
    download "$1" "$work" || exit 1
    unpack "$1" "$work" || exit 1
    rm -rf "$2" || exit 1
    mv -T "$work/root" "$2"
  ) 9>"$2.lock"
}

# Writes an apt configuration that ignores installed packages and takes only download settings from the machine's own.
prepare_apt() { # server work
  local work=$2 keyring sources
  sources=$(package_sources "$1")
  [[ -n $sources ]] || {
    warn "$1: no Debian or Ubuntu archive is configured in apt"
    return 1
  }
  mkdir -p "$work"/{lists/partial,archives/partial,debs,root,log}
  : >"$work/status"
  for keyring in /usr/share/keyrings/{debian,ubuntu}-archive-keyring.{gpg,pgp}; do
    [[ ! -e $keyring ]] || sources=${sources//deb \[\]/deb [signed-by=$keyring]}
  done
  echo "${sources//deb \[\]/deb}" >"$work/sources.list"
  {
    apt-config dump | grep '^Acquire::' | grep -vE '^Acquire::(IndexTargets|Languages|CompressionTypes)'
    cat <<CONF
APT::Architecture "$(dpkg --print-architecture)";
APT::Architectures { "$(dpkg --print-architecture)"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Log "$work/log";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
  } >"$work/apt.conf"
  say "$1: reading the package lists of $(suite_of "$1") ..."
  # A list that could not be read shows up later, as a missing package.
  APT_CONFIG=$work/apt.conf apt-get update >"$work/apt.log" 2>&1 || true
}

# One line of sources.list for each part of the machine's Debian or Ubuntu archive, or for sid on the same mirror.
package_sources() {
  local uri release component
  # Without release info, apt also names archives whose lists the machine has not fetched yet.
  # shellcheck disable=SC2016
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null | sort -u |
    while read -r uri release component; do
      [[ $uri =~ /(debian|ubuntu)(-security|-ports)?/?$|/mirrors/debian|security\.(debian|ubuntu) ]] || continue
      [[ $component =~ ^(main|universe)$ && ! $release =~ backports|proposed|experimental ]] || continue
      if [[ $(suite_of "$1") != sid ]]; then
        echo "deb [] $uri $release $component"
      elif [[ ! $release =~ security|updates && ! $uri =~ security && $component == main ]]; then
        echo "deb [] $uri sid main"
        break
      fi
    done
}

apt_failed() {
  warn "$1: apt-get failed:"
  grep -E '^[EW]:' "$2/apt.log" | tail -n 3 | sed 's/^/    /' >&2
  return 1
}

# The packages to ask apt for.
packages_of() { # server work
  case $1 in
    # Ubuntu has the version in the name.
    mysql) APT_CONFIG=$2/apt.conf apt-cache search --names-only '^mysql-server-core(-[0-9.]+)?$' | cut -d' ' -f1 | sort -V | head -n 1 ;;
    mariadb) echo mariadb-server-core ;;
    redis) echo redis-server ;;
    rabbitmq) echo rabbitmq-server ;;
  esac
}

# The packages that apt would install, each as "name bytes", except those that the programs do not need.
needed_packages() { # server work
  local omit='^(lib.*-perl|libperl.*|libpython.*|libpam.*|libsemanage.*|libsepol.*|libaudit.*)$'
  # The distribution's own packages use the machine's C library, and two C libraries must not be mixed.
  [[ $(suite_of "$1") == sid ]] || omit="$omit|^libc6\$"
  # shellcheck disable=SC2046
  APT_CONFIG=$2/apt.conf apt-get -y --print-uris install $(packages_of "$1" "$2") 2>>"$2/apt.log" |
    sed -nE "s/^'[^']*' ([^_ ]+)_[^ ]* ([0-9]+) .*/\1 \2/p" |
    awk -v omit="$omit" '$1 ~ /^(lib|erlang-|redis-|rabbitmq-|mariadb-|mysql-|gcc-)/ && $1 !~ omit'
}

download() { # server work
  local list names version
  list=$(needed_packages "$1" "$2")
  mapfile -t names < <(cut -d' ' -f1 <<<"$list")
  [[ -n ${names[0]:-} ]] || { apt_failed "$1" "$2" || return 1; }
  version=$(APT_CONFIG=$2/apt.conf apt-cache show --no-all-versions "$(packages_of "$1" "$2")" | sed -nE 's/^Version: ([0-9]+:)?([0-9.]+).*/\2/p')
  echo "$version" >"$2/version"
  say "$1: fetching $1 $version ($(awk '{ sum += $2 } END { printf "%.0f", sum / 1e6 }' <<<"$list") MB in ${#names[@]} packages) ..."
  (cd "$2/debs" && APT_CONFIG=$2/apt.conf apt-get download "${names[@]}") >>"$2/apt.log" 2>&1 || apt_failed "$1" "$2"
}

unpack() { # server work
  local home=$2/root
  say "$1: unpacking ..."
  # shellcheck disable=SC2016
  find "$2/debs" -name '*.deb' -print0 | xargs -0 -n 1 -P 2 sh -c 'dpkg-deb -x "$2" "$1"' unpack "$home" || return 1
  [[ -x $home/$(program_path "$1") ]] || {
    warn "$1: the packages do not contain $(program_path "$1")"
    return 1
  }
  rm -rf "$home"/usr/share/{doc,man,locale,bash-completion,zsh,lintian} "$home"/usr/lib/erlang/man
  echo "$(count_files "$home") $(cat "$2/version")" >"$home/COMPLETE"
}
