# shellcheck shell=bash
# Runs each command for one service. Sourced by scripts/services.
#
# Invariant: a user's own server is neither started nor stopped.

: "${run:?}" "${flavour:?}"

up_service() {
  local server=$1 port version home
  if is_users_own "$1"; then
    say "$1: using $(url_variable "$1")"
    return
  fi
  [[ $1 != mysql ]] || server=$flavour
  port=$(port_of "$server")
  if pid_of "$server" >/dev/null; then
    if [[ $(recorded_port "$server") == "$port" ]] && version=$("probe_$server" 127.0.0.1 "$port"); then
      say "$server $version: is already up on 127.0.0.1:$port"
      return
    fi
    say "$server: restarting, since it does not answer on port $port"
    stop_server "$server"
  fi
  home=$(home_of "$server")
  make_room "$server" "$port"
  say "$server: starting ..."
  "start_$server" "$port" "$home"
  wait_until_ready "$server" "$port"
}

# Makes sure that a server's port is free. MySQL and MariaDB give way to each other, once the new one can be started.
make_room() { # server port
  local other=''
  case $1 in
    mysql) other=mariadb ;;
    mariadb) other=mysql ;;
  esac
  [[ -n $other ]] && pid_of "$other" >/dev/null || other=''
  [[ -n $other && $(recorded_port "$other") == "$2" ]] || require_free_port "$1" "$2"
  if [[ -n $other ]]; then
    say "$other: stopping, because $1 takes its place"
    stop_server "$other"
  fi
}

down_service() {
  case $1 in
    mysql)
      stop_server mysql
      stop_server mariadb
      ;;
    rabbitmq)
      stop_server rabbitmq
      stop_server epmd
      ;;
    *) stop_server "$1" ;;
  esac
}

purge_service() {
  local server servers=("$1")
  [[ $1 != mysql ]] || servers+=(mariadb)
  [[ $1 != rabbitmq ]] || servers+=(epmd)
  for server in "${servers[@]}"; do rm -rf "${run:?}/$server" "$run/log/$server.log"*; done
  say "$1: data deleted"
}

status_line() { printf '%-9s %-9s %-16s %-11s %s\n' "$@"; }

status_of_users_own() {
  local variable host port version
  variable=$(url_variable "$1")
  if ! read -r host port < <(host_and_port "$1"); then
    status_line "$1" - "$variable" yours "down (the address names no host)"
    return 1
  elif ! version=$("probe_$1" "$host" "$port"); then
    status_line "$1" - "$variable" yours "down (does not answer on $host:$port)"
    return 1
  fi
  status_line "$1" "$version" "$variable" yours up
}

status_service() {
  local server port pid version
  if is_users_own "$1"; then
    status_of_users_own "$1"
    return
  fi
  server=$(server_of "$1")
  port=$(recorded_port "$server") || port=$(port_of "$server")
  if ! pid=$(pid_of "$server"); then
    status_line "$server" - "127.0.0.1:$port" - down
    return 1
  elif ! version=$("probe_$server" 127.0.0.1 "$port"); then
    status_line "$server" - "127.0.0.1:$port" "pid $pid" "down (does not answer)"
    return 1
  fi
  status_line "$server" "$version" "127.0.0.1:$port" "pid $pid" up
}
