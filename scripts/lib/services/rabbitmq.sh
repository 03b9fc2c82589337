# shellcheck shell=bash
# Starts Erlang's name server (epmd), and then RabbitMQ. Sourced by scripts/services.
#
# Invariant: both listen on the loopback address only.

: "${root:?}" "${run:?}"

# Writes the definitions that the broker reads at each start. A broker with definitions does not create its user guest.
write_definitions() { # folder
  mkdir -p "$1/definitions"
  users_from rabbitmq/users.json '{namespace}=coupon[^.]*' >"$1/definitions/users.json"
  cat >"$1/definitions/guest.json" <<'JSON'
{
  "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
  "vhosts": [{"name": "/"}],
  "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}]
}
JSON
}

# Sets "run_with" to start Erlang without its start script, which has Debian's folder built in.
set_erlang() { # home
  local erlang=${1%/}/usr/lib/erlang binaries
  set_run_with "$1"
  [[ -d $erlang ]] || return 0
  binaries=$(echo "$erlang"/erts-*/bin)
  if [[ $1 != / ]]; then
    # The server's script looks for this name.
    mkdir -p "$run/rabbitmq/bin"
    ln -sfn "$binaries/erlexec" "$run/rabbitmq/bin/erl"
  fi
  run_with+=("PATH=$run/rabbitmq/bin:$binaries:/usr/sbin:/usr/bin:/sbin:/bin" "ROOTDIR=$erlang" "BINDIR=$binaries" EMU=beam PROGNAME=erl)
}

# Starts Erlang's name server here, because one that Erlang started by itself could not be found again.
start_epmd() { # port home
  pid_of epmd >/dev/null && [[ $(recorded_port epmd) == "$1" ]] && return
  stop_server epmd
  require_free_port epmd "$1"
  launch epmd "$1" "${run_with[@]}" epmd -address 127.0.0.1 -port "$1"
  local end=$((SECONDS + 10))
  until pid_of epmd >/dev/null && [[ -n $(listening_inodes "$1") ]]; do
    ((SECONDS < end)) || start_failed epmd "does not listen on port $1"
    sleep 0.05
  done
}

start_rabbitmq() { # port home
  local folder=$run/rabbitmq run_with
  mkdir -p "$folder/home"
  set_erlang "$2"
  require_free_port rabbitmq $(($1 + 1))
  require_free_port rabbitmq "$(management_port "$1")"
  start_epmd "$(epmd_port "$1")" "$2"
  # Services read a queue's policies through the HTTP API.
  echo '[rabbitmq_management].' >"$folder/enabled_plugins"
  write_definitions "$folder"
  cat >"$folder/advanced.config" <<CONFIG
[{rabbit, [{load_definitions, "$folder/definitions"}]},
 {rabbitmq_management, [{tcp_config, [{ip, "127.0.0.1"}, {port, $(management_port "$1")}]}]}].
CONFIG
  # Threads are not bound to cores, because the machine is shared with the other servers and the tests.
  # The node's name has an address as its host, so that no name has to be resolved.
  # RUNNING_UNDER_SYSTEMD makes the script become the server instead of remaining as its parent.
  launch rabbitmq "$1" "${run_with[@]}" "HOME=$folder/home" RUNNING_UNDER_SYSTEMD=true RABBITMQ_SCHEDULER_BIND_TYPE=u \
    RABBITMQ_USE_LONGNAME=true RABBITMQ_NODENAME=coupon@127.0.0.1 RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    "RABBITMQ_NODE_PORT=$1" "RABBITMQ_DIST_PORT=$(($1 + 1))" \
    ERL_EPMD_ADDRESS=127.0.0.1 "ERL_EPMD_PORT=$(epmd_port "$1")" \
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}" \
    "RABBITMQ_CONFIG_FILE=$root/deploy/rabbitmq/rabbitmq.conf" \
    RABBITMQ_CONF_ENV_FILE=/dev/null "RABBITMQ_ADVANCED_CONFIG_FILE=$folder/advanced.config" \
    "RABBITMQ_ENABLED_PLUGINS_FILE=$folder/enabled_plugins" "RABBITMQ_PID_FILE=$folder/server.pid" \
    "RABBITMQ_MNESIA_BASE=$folder/data" "RABBITMQ_LOG_BASE=$folder/log" RABBITMQ_LOGS=- \
    "${2%/}/usr/lib/rabbitmq/bin/rabbitmq-server"
}
