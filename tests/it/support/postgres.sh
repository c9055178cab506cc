# Makes a cluster in folder $1 with the programs in $2, serves it on port $3 ($4: primary, standby, or replica of the
# server whose folder and port are $5) with the variables $6 and the options that follow, until stdin ends.
folder=$1 bin=$2 port=$3 mode=$4 origin=$5 variables=$6
shift 6
trap '' INT TERM HUP
as=
if [ "$(id -u)" = 0 ]; then
  # A server does not run as root.
  user=$(id -un postgres 2>/dev/null || echo nobody)
  chown "$user" "$folder"
  as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi
# No command may read the pipe but the one that waits for its end.
exec 3<&0 </dev/null >>"$folder/log" 2>&1
cd "$folder" || exit 1
if [ "$mode" = replica ]; then
  $as "$bin/pg_basebackup" -D "$folder/data" -h "${origin% *}" -p "${origin#* }" -U rejoin -c fast -X stream --no-sync \
    || exit 1
else
  echo admin-secret >"$folder/password"
  chmod 644 "$folder/password"
  $as "$bin/initdb" -D "$folder/data" -U rejoin -E UTF8 --locale=C --no-sync \
    --auth-local=trust --auth-host=scram-sha-256 --pwfile="$folder/password" || exit 1
  echo "CREATE ROLE app LOGIN PASSWORD 'app-secret'" | $as "$bin/postgres" --single -D "$folder/data" postgres || exit 1
fi
[ "$mode" = primary ] || $as touch "$folder/data/standby.signal"
$as env $variables "$bin/postgres" -D "$folder/data" -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c fsync=off \
  -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=64MB -c autovacuum=on "$@" &
server=$!
touch "$folder/ready"
cat <&3 >/dev/null
# It may have been ended before; then its number is somebody else's.
[ -f "$folder/data/postmaster.pid" ] && kill -QUIT $server
wait $server
rm -rf "$folder"
