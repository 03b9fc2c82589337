# shellcheck shell=bash
# Starts Redis. Sourced by scripts/services.
#
# Invariant: the server listens on 127.0.0.1 only.

: "${root:?}" "${run:?}"

start_redis() { # port home
  local run_with
  set_run_with "$2"
  mkdir -p "$run/redis/data"
  users_from redis/users.acl '{namespace}=coupon*' >"$run/redis/users.acl"
  launch redis "$1" "${run_with[@]}" "${2%/}/usr/bin/redis-server" "$root/deploy/redis/redis.conf" \
    --bind 127.0.0.1 --port "$1" --dir "$run/redis/data" --aclfile "$run/redis/users.acl" --daemonize no
}
