# shellcheck shell=bash
# The compose project of scripts/test-compose: its settings, waiting until it is healthy, and taking it down.
#
# Invariants:
#  - Docker chooses every port; containers, networks and volumes belong to this project alone.
#  - Everything is taken down at the end, however the script ends.

project=coupon-test-$$
readonly project
readonly servers=(mysql redis rabbitmq jaeger) services=(producer-api queue-consumer skiplock-api)
readonly ready_seconds=180
# Compose files to use instead of docker-compose.yml alone.
files=()

# The caller's settings must not influence the test.
for variable in "${!COUPON_@}" "${!OTEL_@}"; do unset "$variable"; done
unset LOG LOG_FORMAT MYSQL_CONNECTIONS QUEUE_MAX ORDER CLAIMS_PER_MESSAGE BATCH_MAX PREFETCH REFILL_MAX STRATEGY GROUP_MAX CLAIM_GROUPS
unset HTTP_WORKERS HTTP_CONNECTIONS CLAIMS_PER_ACCOUNT PUBLIC_PAGES AUTH "${!AUTH_@}" TRUSTED_PROXIES COMPOSE_FILE COMPOSE_PROFILES

work=$(mktemp -d)
readonly work mysql_password=mysql-$RANDOM amqp_password=amqp-$RANDOM
cat >"$work/env" <<TEXT
COUPON_MYSQL_PASSWORD=$mysql_password
COUPON_MYSQL_ROOT_PASSWORD=$mysql_password
COUPON_AMQP_USER=coupon
COUPON_AMQP_PASSWORD=$amqp_password
COUPON_MYSQL_PORT=0
COUPON_REDIS_PORT=0
COUPON_AMQP_PORT=0
COUPON_RABBITMQ_PAGE_PORT=0
COUPON_JAEGER_PAGE_PORT=0
COUPON_OTLP_PORT=0
COUPON_PROMETHEUS_PORT=0
COUPON_GRAFANA_PORT=0
COUPON_PRODUCER_PORT=0
COUPON_SKIPLOCK_PORT=0
COUPON_PRODUCER_ADMIN_PORT=0
COUPON_SKIPLOCK_ADMIN_PORT=0
TEXT

compose() { docker compose --project-name "$project" --env-file "$work/env" "${files[@]}" "$@"; }

# Runs a command silently; shows its output if it fails.
quietly() { "$@" >"$work/said" 2>&1 </dev/null || { cat "$work/said" >&2 && fail "failed: $*"; }; }

take_down() {
  local status=$?
  trap - EXIT INT TERM
  if ((status != 0)); then
    echo "test-compose: the last lines of each container:" >&2
    compose ps --all >&2 || true
    compose logs --tail 15 >&2 || true
  fi
  say "taking it down"
  compose --profile tools kill >/dev/null 2>&1 || true
  compose --profile tools down --volumes --remove-orphans >/dev/null 2>&1 || status=1
  rm -rf "$work"
  exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The running containers of a service.
containers() { compose ps --quiet --status running "$1"; }

is_healthy() { # service count
  local ids states
  mapfile -t ids < <(containers "$1")
  ((${#ids[@]} == $2)) || return 1
  states=$(docker inspect --format '{{.State.Health.Status}}' "${ids[@]}" 2>/dev/null | sort -u) || return 1
  [[ $states == healthy ]]
}

# Waits until everything is up and healthy, with this many consumers.
wait_until_healthy() { # consumers
  local end=$((SECONDS + ready_seconds)) service count
  for service in "${servers[@]}" "${services[@]}"; do
    count=1
    [[ $service != queue-consumer ]] || count=$1
    until is_healthy "$service" "$count"; do
      ((SECONDS < end)) || fail "$service is not healthy with $count of it after $ready_seconds s"
      sleep 0.5
    done
  done
}

# Runs one of our commands inside the compose network.
run() { compose --profile tools run --rm --no-deps --no-TTY "$@" </dev/null; }
