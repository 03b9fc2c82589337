# shellcheck shell=bash
# The part of scripts/test-compose that runs with deploy/tls.compose.yml.
#
# Invariant: it begins with new volumes, so that they hold nothing from servers that still spoke in the clear.

: "${work:?}"

# Takes the project down, and starts it again with TLS everywhere.
start_over_tls() {
  local began=$SECONDS
  quietly compose --profile tools down --volumes
  # shellcheck disable=SC2034 # `compose` reads it.
  files=(--file docker-compose.yml --file deploy/tls.compose.yml)
  quietly compose up --detach --scale queue-consumer=2
  wait_until_healthy 2
  ok "all healthy after $((SECONDS - began)) s"
}

# Fails if an API answers in the clear.
speaks_tls_only() { # service port
  local answer
  answer=$(get "$1" "$2" /livez 2>/dev/null | tr -d '\0') || true
  [[ $answer != HTTP* ]] || fail "$1 speaks HTTP in the clear: $answer"
  ok "$1 does not answer in the clear"
}

# Fails if a server speaks in the clear. The commands are those that the health checks run over TLS.
# shellcheck disable=SC2016 # The shells in the containers expand it.
servers_speak_tls_only() {
  refused mysql sh -c 'MYSQL_PWD=$MYSQL_PASSWORD mysql --host=127.0.0.1 --user="$MYSQL_USER" --ssl-mode=DISABLED -e "DO 1"'
  refused redis sh -c 'redis-cli ping | grep PONG'
  refused rabbitmq bash -c '</dev/tcp/127.0.0.1/5672'
}

# Fails if a command succeeds in a server's container.
refused() { # service command...
  if timeout 20 docker exec "$(containers "$1")" "${@:2}" >"$work/said" 2>&1 </dev/null; then
    fail "$1 speaks in the clear: $(<"$work/said")"
  fi
  ok "$1 speaks TLS only"
}
