# shellcheck shell=bash
# Starts, finds and stops processes. Sourced by scripts/services.
#
# Invariants:
#  - Only a process that this checkout started is ever signalled: its pid, its start time and its working folder below
#    .services/ must all agree with the pid file.
#  - Started servers keep no terminal and no file descriptor of the caller.

: "${run:?}"
readonly stop_seconds=60

# The start time of a process in clock ticks since boot, which distinguishes it from a later one with the same pid.
start_time() {
  local stat fields
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The program's name, in parentheses, may contain anything; the fields after it are numbers.
  read -ra fields <<<"${stat##*) }"
  echo "${fields[19]}"
}

# The pid of a server of this checkout, or failure when it is not running.
pid_of() {
  local pid start port cwd
  read -r pid start port 2>/dev/null <"$run/$1.pid" || return 1
  [[ -n $port && $(start_time "$pid") == "$start" ]] || return 1
  cwd=$(readlink "/proc/$pid/cwd") || return 1
  # Checking the folder also keeps a copied checkout from taking its original's servers for its own.
  [[ $cwd == "$run/$1" || $cwd == "$run/$1"/* ]] || return 1
  # A zombie has ended, although its entry is still there.
  ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null || return 1
  echo "$pid"
}

recorded_port() {
  local pid start port
  pid_of "$1" >/dev/null || return 1
  read -r pid start port <"$run/$1.pid"
  echo "$port"
}

# The inodes of the sockets that listen on a TCP port, whatever the address.
listening_inodes() {
  local hex
  hex=$(printf '%04X' "$1")
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }'
}

# The process that listens on a port, as far as this user may see.
port_holder() {
  local inode fd pid
  for inode in $(listening_inodes "$1"); do
    for fd in /proc/[0-9]*/fd/*; do
      [[ $(readlink "$fd" 2>/dev/null) == "socket:[$inode]" ]] || continue
      pid=${fd#/proc/}
      pid=${pid%%/*}
      echo "process $pid ($(<"/proc/$pid/comm"), working in $(readlink "/proc/$pid/cwd"))"
      return
    done
  done
  echo "a process of another user"
}

require_free_port() {
  [[ -z $(listening_inodes "$2") ]] || die "$1: port $2 is taken by $(port_holder "$2"); stop that, or set $(port_variable "$1") to another port"
}

# Runs a program in the background, in a session of its own and in the server's folder.
launch() { # server port command...
  local server=$1 port=$2 log=$run/log/$1.log
  shift 2
  mkdir -p "$run/$server" "$run/log"
  [[ ! -e $log ]] || mv "$log" "$log.1"
  rm -f "$run/$server.pid"
  (
    cd "$run/$server" || exit
    close_descriptors
    # The launcher records its own pid, then becomes the server.
    # shellcheck disable=SC2016
    exec setsid bash -c '
      read -r stat </proc/$$/stat
      fields=(${stat##*) })
      echo "$$ ${fields[19]} $2" >"$1.new" && mv "$1.new" "$1"
      shift 2
      exec "$@"' launch "$run/$server.pid" "$port" "$@" </dev/null >"$log" 2>&1
  ) &
}

# Closes every inherited descriptor except the three standard ones: a lock, for example, or the pipe of a build tool.
close_descriptors() {
  local fd
  for fd in /proc/"$BASHPID"/fd/*; do
    fd=${fd##*/}
    ((fd <= 2)) || eval "exec $fd>&-"
  done
}

# Stops a server with SIGTERM or, if that takes too long, with SIGKILL. Does nothing if it is not running.
stop_server() {
  local pid end=$((SECONDS + stop_seconds))
  if pid=$(pid_of "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    while pid_of "$1" >/dev/null && ((SECONDS < end)); do sleep 0.1; done
    if pid_of "$1" >/dev/null; then
      warn "$1: still running after $stop_seconds s, killing it"
      # The launcher made it the leader of its process group.
      kill -KILL -- "-$pid" 2>/dev/null || true
      while pid_of "$1" >/dev/null; do sleep 0.1; done
    fi
    say "$1: stopped"
  fi
  rm -f "$run/$1.pid"
}

# Waits for the checkout's lock, which is released when this script ends.
lock_checkout() {
  mkdir -p "$run"
  exec 8>"$run/lock"
  flock --nonblock 8 || { say "waiting for another scripts/services in this checkout" && flock 8; }
}

# Runs a function for all names at the same time, and fails if any of them fails.
in_parallel() { # function name...
  local action=$1 name job failed=0
  shift
  jobs=()
  # Each job gets a process group, so an interrupt also ends its downloads. Servers that are up have left the group.
  set -m
  for name in "$@"; do
    "$action" "$name" </dev/null &
    jobs+=($!)
  done
  set +m
  trap 'kill -TERM -- "${jobs[@]/#/-}" 2>/dev/null; exit 130' INT TERM HUP
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  trap - INT TERM HUP
  return "$failed"
}
