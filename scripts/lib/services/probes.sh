# shellcheck shell=bash
# Asks servers whether they answer. Sourced by scripts/services.
#
# Invariant: a server counts as up only when it has answered in its own protocol; a bound port is not enough.

: "${run:?}"
readonly start_seconds=120

# Each probe takes a host and a port and prints the version of the server there, or fails.

# MySQL greets with three bytes of length, a sequence number, the protocol (10), the version and a zero.
probe_mysql() {
  local version
  # shellcheck disable=SC2016
  version=$(timeout 3 bash -c '
    exec 3<>"/dev/tcp/$1/$2"
    for _ in 1 2 3 4; do IFS= read -r -d "" -u 3 part; done
    printf %s "$part"' probe "$1" "$2" 2>/dev/null) || return 1
  [[ $version == $'\n'* ]] || return 1
  version=${version:1}
  version=${version#5.5.5-}
  echo "${version%%-*}"
}

probe_mariadb() { probe_mysql "$@"; }

probe_redis() {
  # shellcheck disable=SC2016
  timeout 3 bash -c '
    exec 3<>"/dev/tcp/$1/$2"
    printf "PING\r\nINFO server\r\n" >&3
    IFS= read -r -u 3 line
    # A server that requires a password answers, but does not say its version.
    [[ $line != -NOAUTH* ]] || { echo "?" && exit 0; }
    [[ $line == +PONG* ]] || exit 1
    while IFS= read -r -u 3 line; do
      [[ $line != -* ]] || { echo "?" && exit 0; }
      # The line ends in a carriage return.
      [[ $line == redis_version:* ]] && line=${line#*:} && echo "${line%?}" && exit 0
    done
    exit 1' probe "$1" "$2" 2>/dev/null
}

# RabbitMQ answers the protocol header with a method frame, Connection.Start (10, 10), which names the version.
probe_rabbitmq() {
  local answer
  # shellcheck disable=SC2016
  answer=$(timeout 3 bash -c '
    exec 3<>"/dev/tcp/$1/$2"
    printf "AMQP\0\0\11\1" >&3
    read -ra head < <(head -c 7 <&3 | od -An -tu1)
    [[ ${head[0]} == 1 ]] || exit 1
    head -c $((head[5] * 256 + head[6])) <&3 | tr "\0\12" "@@"' probe "$1" "$2" 2>/dev/null) || return 1
  [[ $answer == @@@@* && $answer =~ versionS@@@.([0-9]+\.[0-9]+\.[0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

wait_until_ready() { # server port
  local end=$((SECONDS + start_seconds)) begin=$SECONDS version
  until version=$("probe_$1" 127.0.0.1 "$2"); do
    # The launcher needs a moment to record its pid; until then, a missing process does not mean that it has ended.
    if [[ -e $run/$1.pid ]]; then
      pid_of "$1" >/dev/null || start_failed "$1" "ended while starting"
    elif ((SECONDS - begin > 5)); then
      start_failed "$1" "could not be started"
    fi
    ((SECONDS < end)) || start_failed "$1" "does not answer on port $2 after $start_seconds s"
    sleep 0.1
  done
  # The answer may have come from another server that took the port in the meantime.
  pid_of "$1" >/dev/null || start_failed "$1" "ended while starting"
  say "$1 $version: up on 127.0.0.1:$2 (after $((SECONDS - begin)) s)"
}

start_failed() {
  warn "$1: $2; the first errors and the last lines of .services/log/$1.log:"
  { grep -m 4 -E 'ERROR|FATAL|\[error\]' "$run/log/$1.log" || true; } | sed 's/^/    /' >&2
  tail -n 15 "$run/log/$1.log" | sed 's/^/    /' >&2
  exit 1
}
