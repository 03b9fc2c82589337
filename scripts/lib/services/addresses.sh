# shellcheck shell=bash
# Knows where each server listens, and which users it has. Sourced by scripts/services.
#
# Invariant: `check_settings` has checked every port before it is used, so an address is always complete.

: "${root:?}" "${flavour:?}" "${spare?}" "${above:?}"

# The variable that holds the address of a service.
url_variable() {
  case $1 in
    mysql) echo "COUPON_${spare}MYSQL_URL" ;;
    redis) echo "COUPON_${spare}REDIS_URL" ;;
    rabbitmq) echo "COUPON_${spare}AMQP_URL" ;;
  esac
}

# The variable that moves a service to another port.
port_variable() {
  case $1 in
    mysql | mariadb) echo "COUPON_${spare}MYSQL_PORT" ;;
    redis) echo "COUPON_${spare}REDIS_PORT" ;;
    rabbitmq | epmd) echo "COUPON_${spare}AMQP_PORT" ;;
  esac
}

default_port() {
  case $1 in
    mysql | mariadb) echo $((13306 + above)) ;;
    redis) echo $((16379 + above)) ;;
    rabbitmq) echo $((15673 + above)) ;;
  esac
}

# Refuses settings that cannot be used, naming each, before anything is started or printed.
check_settings() {
  local service variable port wrong=()
  [[ $flavour == mysql || $flavour == mariadb ]] || wrong+=("COUPON_MYSQL_FLAVOUR=$flavour is neither mysql nor mariadb")
  for service in mysql redis rabbitmq; do
    variable=$(port_variable "$service")
    port=${!variable:-$(default_port "$service")}
    if ! [[ $port =~ ^[1-9][0-9]{3,4}$ ]] || ((port < 2328 || port > 65533)); then
      wrong+=("$variable=$port is not a port from 2328 to 65533")
    fi
  done
  ((${#wrong[@]} == 0)) || wrong_usage "${wrong[@]}"
}

# The port of a server: the requested one, otherwise the one it is running on, otherwise the default.
port_of() {
  local variable
  variable=$(port_variable "$1")
  if [[ -n ${!variable:-} ]]; then
    echo "${!variable}"
  else
    recorded_port "$1" || default_port "$1"
  fi
}

epmd_port() { echo $(($1 - 1304)); }

management_port() { echo $(($1 + 2)); }

own_url() {
  local port
  port=$(port_of "$(server_of "$1")")
  case $1 in
    mysql) echo "mysql://coupon:coupon@127.0.0.1:$port/coupon" ;;
    redis) echo "redis://127.0.0.1:$port/0" ;;
    rabbitmq) echo "amqp://guest:guest@127.0.0.1:$port/%2f" ;;
  esac
}

# Succeeds if a service is the user's own server. An address that is exactly the one that "env" prints is one of ours.
is_users_own() {
  local variable
  variable=$(url_variable "$1")
  [[ -n ${!variable:-} && ${!variable} != "$(own_url "$1")" ]]
}

# The host and the port in the address of the user's own server, or failure if it has none.
host_and_port() { # service
  local variable address host port
  variable=$(url_variable "$1")
  address=${!variable#*://}
  address=${address%%[/?#]*}
  address=${address##*@}
  case $1 in
    mysql) port=3306 ;;
    redis) port=6379 ;;
    rabbitmq) port=5672 ;;
  esac
  # An IPv6 address stands in brackets.
  [[ $address =~ ^(\[([0-9a-fA-F:.]+)\]|([^]:[]+))(:([0-9]+))?$ ]] || return 1
  host=${BASH_REMATCH[2]:-${BASH_REMATCH[3]}}
  echo "$host ${BASH_REMATCH[5]:-$port}"
}

# The HTTP API of RabbitMQ, which lists its policies. Only the user can name that of their own server; empty means none.
management_url() {
  if is_users_own rabbitmq; then
    local variable=COUPON_${spare}AMQP_MANAGEMENT_URL
    echo "${!variable:-}"
  else
    echo "http://127.0.0.1:$(management_port "$(port_of rabbitmq)")"
  fi
}

# The server behind a service: "mysql" may be MariaDB. The running one counts, or if none is running, the requested one.
server_of() {
  if [[ $1 != mysql ]]; then
    echo "$1"
  elif pid_of mysql >/dev/null; then
    echo mysql
  elif pid_of mariadb >/dev/null; then
    echo mariadb
  else
    echo "$flavour"
  fi
}

# The statements in deploy/ that create a user with its rights for each program, with the placeholders filled in.
users_from() { # file placeholder=value...
  local text pair
  text=$(sed -E '/^(--|#|$)/d' "$root/deploy/$1")
  text=${text//'{password}'/for-tests-only}
  for pair in "${@:2}"; do text=${text//"${pair%%=*}"/"${pair#*=}"}; done
  printf '%s\n' "$text"
}
