# shellcheck shell=bash
# The actions of scripts/test-compose on its running project: requests, loads, traces, scaling the consumers.
#
# Invariant: the host needs no HTTP client. Each started load has a name, by which the script waits for it.

: "${work:?}"
declare -A loads=()

# Sends a request to a published port and prints status line, headers and body.
request() { # service port method path [body]
  local address body=${5:-}
  address=$(compose port "$1" "$2")
  [[ $address == 127.0.0.1:* ]] || fail "$1 is published on $address, not on 127.0.0.1"
  # shellcheck disable=SC2016
  timeout 10 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" "$2" "$3" >&3
    printf "Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s" "${#4}" "$4" >&3
    cat <&3' request "${address##*:}" "$3" "$4" "$body"
}

get() { request "$1" "$2" GET "$3"; } # service port path

# Fails unless an answer contains a text.
expect() { # text service port path
  local answer
  answer=$(get "${@:2}") || fail "no answer from $2 to $4"
  [[ $answer == *"$1"* ]] || fail "$2 answers to $4 without '$1': $answer"
  ok "$2 $4: $1"
}

# Claims over HTTP, then waits until Jaeger has the trace named in the answer, with all of these spans.
claim_and_trace() { # service port campaign span...
  local answer id
  answer=$(request "$1" "$2" POST "/v1/campaigns/$3/claims" '{"account_id":4711}')
  id=$(sed -n 's/^traceparent: 00-\([0-9a-f]*\)-.*/\1/p' <<<"$answer")
  [[ -n $id ]] || fail "$1 names no trace: $answer"
  has_spans "$id" "${@:4}"
  ok "$1: the claim is trace $id in Jaeger, with its spans"
}

# Waits until Jaeger has a trace with all of these spans, and leaves it in $trace.
has_spans() { # id span...
  local span end=$((SECONDS + 30))
  for span in "${@:2}"; do
    until trace=$(get jaeger 16686 "/api/v3/traces/$1") && grep -q "\"name\": *\"$span" <<<"$trace"; do
      ((SECONDS < end)) || fail "the trace $1 has no span '$span': $trace"
      sleep 0.5
    done
  done
}

# Fails unless the trace of a comparison's claim has these spans, and each span but the root has its parent in it.
is_whole() { # number of the claim, span...
  local id parent trace
  id=$(sed -n 's|^one of them, .*/trace/||p' "$work/compare" | sed -n "$1p")
  [[ -n $id ]] || fail "coupon-bench names no claim $1"
  has_spans "$id" "${@:2}"
  while read -r parent; do
    grep -q "\"spanId\": *\"$parent\"" <<<"$trace" || fail "the trace $id has no span $parent, which is a parent: $trace"
  done < <(grep -o '"parentSpanId": *"[0-9a-f]\+"' <<<"$trace" | grep -o '[0-9a-f]\{16\}')
  ok "the trace $id is whole"
}

# Creates a campaign with coupons.
campaign() { run couponctl campaign create --id "$1" --coupons "$2" >"$work/campaign" 2>&1 || { cat "$work/campaign" >&2 && fail "no campaign $1"; }; }

load() { # api:port campaign accounts rate [option]...
  run coupon-bench load --url "http://$1" --campaign "$2" --accounts "$3" --rate "$4" "${@:5}"
}

# Starts a load that runs while the script goes on; `loaded` waits for it.
start_load() { # name api:port campaign accounts rate [option]...
  load "${@:2}" >"$work/$1.load" 2>&1 &
  loads[$1]=$!
  # The load should be under way when the next step begins.
  sleep 2
}

# Waits for a load, which must have ended without an error and with a clean audit.
loaded() { # name
  local status=0
  wait "${loads[$1]}" || status=$?
  cat "$work/$1.load"
  ((status == 0)) || fail "the load '$1' had errors or its audit was not clean"
}

# Waits until every running replica has issued coupons since a point in time.
each_consumer_issues() { # since
  local id end=$((SECONDS + 60)) log
  for id in $(containers queue-consumer); do
    until log=$(docker logs --since "$1" "$id" 2>&1 | grep -o 'settled claims issued=[1-9].*'); do
      ((SECONDS < end)) || fail "the consumer ${id:0:12} has issued nothing in 60 s"
      sleep 1
    done
    ok "consumer ${id:0:12}: ${log%%$'\n'*}"
  done
}

scale() { # count
  local since
  quietly compose up --detach --scale "queue-consumer=$1"
  since=$(date +%s)
  wait_until_healthy "$1"
  ok "$1 consumers run"
  each_consumer_issues "$since"
}

# Succeeds if the program in an image carries the list of its packages, which scanners look for under this name.
lists_packages() { # image
  local container lines
  container=$(docker create "$1")
  lines=$(docker cp "$container:/usr/local/bin" - | grep -caF .dep-v0) || true
  docker rm "$container" >/dev/null
  ((lines > 0))
}

size_of() { docker image inspect --format '{{.Size}}' "$1"; }
