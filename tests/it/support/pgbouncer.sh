# Serves the cluster in folder $2 on port $3 through a transaction pool on port $4, with its files in $1, until stdin ends.
folder=$1 cluster=$2 server=$3 port=$4
trap '' INT TERM HUP
as=
if [ "$(id -u)" = 0 ]; then
  user=$(id -un postgres 2>/dev/null || echo nobody)
  chown "$user" "$folder"
  as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi
exec 3<&0 </dev/null >>"$folder/log" 2>&1
cat >"$folder/pgbouncer.ini" <<END
[databases]
* = host=$cluster port=$server
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
pool_mode = transaction
default_pool_size = 8
max_client_conn = 500
END
echo '"app" ""' >"$folder/users"
chmod 644 "$folder/pgbouncer.ini" "$folder/users"
PATH=$PATH:/usr/sbin
$as pgbouncer "$folder/pgbouncer.ini" &
pool=$!
cat <&3 >/dev/null
# Whoever begins it with & has it ignore SIGQUIT, and what SIGTERM means differs from version to version.
kill -KILL $pool
wait $pool
rm -rf "$folder"
