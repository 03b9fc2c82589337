# shellcheck shell=bash
# Starts MySQL or MariaDB, which share nearly everything here. Sourced by scripts/services.
#
# Invariants:
#  - The server listens on 127.0.0.1 only, and on no Unix socket.
#  - A new data folder appears under its final name only when it is complete.

: "${root:?}" "${run:?}"

# Sets the array "arguments" to the arguments that MySQL and MariaDB share, for the first start and every later one.
set_database_arguments() { # server home
  local folder=$run/$1
  mkdir -p "$folder/tmp"
  # The server ignores a settings file that others may write to, hence the copy.
  install -m 600 "$root/deploy/mysql/coupon.cnf" "$folder/coupon.cnf"
  arguments=("--defaults-file=$folder/coupon.cnf" "--basedir=${2%/}/usr" "--lc-messages-dir=$(share_folder "$1" "${2%/}")" "--tmpdir=$folder/tmp")
  if ((EUID == 0)); then arguments+=(--user=root); fi
}

# Prints the statements that create the database and its users if they are missing; the server runs them at every start.
# Both servers read one statement per line.
write_init_file() { # server
  local tables=$run/$1/data/coupon line
  cat <<'SQL'
CREATE DATABASE IF NOT EXISTS coupon;
CREATE USER IF NOT EXISTS 'coupon'@'127.0.0.1' IDENTIFIED BY 'coupon';
GRANT ALL ON *.* TO 'coupon'@'127.0.0.1' WITH GRANT OPTION;
SQL
  users_from mysql/rights.sql '{database}=coupon' '{host}=127.0.0.1' | while IFS= read -r line; do
    # The server stops at the first failure, and a right on a table can only be granted once the table exists.
    ! [[ $line =~ \ ON\ \`coupon\`\.([a-z_]+)\  && ! -e $tables/${BASH_REMATCH[1]}.ibd ]] || continue
    echo "$line"
  done
}

# Creates the data folder under another name first, so that an unfinished one is never used.
create_database() { # server home
  local new=$run/$1/data.new
  [[ ! -d $run/$1/data ]] || return 0
  say "$1: creating the data folder ..."
  rm -rf "$new"
  mkdir -p "$run/log"
  "initialize_$1" "$2" "$new" >"$run/log/$1.log" 2>&1 </dev/null || start_failed "$1" "could not create its data folder"
  mv -T "$new" "$run/$1/data"
}

# The folder with the error messages and the SQL for new data folders.
share_folder() { # server home
  if [[ $1 == mariadb && -e $2/usr/share/mariadb/fill_help_tables.sql ]]; then
    echo "$2/usr/share/mariadb"
  else
    echo "$2/usr/share/mysql"
  fi
}

initialize_mysql() { "${run_with[@]}" "$1/usr/sbin/mysqld" "${arguments[@]}" "--datadir=$2" --initialize-insecure; }

# Does what mariadb-install-db does, without the client programs that it needs.
initialize_mariadb() { # home folder
  local sql part
  sql=$(share_folder mariadb "$1")
  mkdir -p "$2/mysql"
  {
    printf '%s;\n' "CREATE DATABASE IF NOT EXISTS mysql" "USE mysql" "SET @auth_root_socket=NULL"
    # Depending on the version, the names begin with mysql_, mariadb_, maria_ or nothing.
    for part in system_tables performance_tables system_tables_data fill_help_tables add_gis_sp_bootstrap sys_schema; do
      cat "$sql"/*"$part".sql
    done
  } | "${run_with[@]}" "$1/usr/sbin/mariadbd" "${arguments[@]}" "--datadir=$2" --bootstrap --skip-log-bin
}

start_database() { # server port home
  local folder=$run/$1 run_with arguments
  set_run_with "$3"
  set_database_arguments "$1" "$3"
  create_database "$1" "${3%/}"
  write_init_file "$1" >"$folder/init.sql"
  [[ $1 == mariadb ]] || arguments+=(--mysqlx=OFF)
  launch "$1" "$2" "${run_with[@]}" "${3%/}/$(program_path "$1")" "${arguments[@]}" "--datadir=$folder/data" \
    --bind-address=127.0.0.1 "--port=$2" --socket= "--pid-file=$folder/server.pid" "--init-file=$folder/init.sql"
}

start_mysql() { start_database mysql "$@"; }

start_mariadb() { start_database mariadb "$@"; }
