#!/bin/bash
# The load on a VM that is recorded, until it is killed: phases drawn from a
# seed, with clients run from the VM's own system, on the host.
#
#   scripts/traces/load.sh database|web|build|cache SUBNET ROOT SEED
set -u
workload=$1 subnet=10.77.$2 root=$3
RANDOM=$4
guest=$subnet.2 host=$subnet.1

client() { chroot "$root" "$@"; }

# between LOW HIGH draws a whole number, both included.
between() { drawn=$(($1 + RANDOM % ($2 - $1 + 1))); }

phase() { echo "$(date +%T) $*"; }

pause() {
	between "$1" "$2"
	phase "pause $drawn s"
	sleep "$drawn"
}

# --- database: PostgreSQL under pgbench ---

bench() { client env PGUSER=load PGHOST="$guest" PGDATABASE=bench pgbench "$@" 2>&1 | grep -E '^tps|latency average|error' ; }
ask() { client env PGUSER=load PGHOST="$guest" PGDATABASE=bench psql -qAtc "$1"; }

database() {
	local rate
	pause 15 30
	phase "load the tables"
	bench --initialize --scale=6 --no-vacuum
	while true; do
		between 0 5
		case $drawn in
		0)
			phase "rise and fall of transactions"
			for rate in 2 5 9 14 20 27 20 12 6 3; do bench -n -T 9 -c 4 -R $rate; done
			;;
		1)
			between 5 18 && rate=$drawn
			between 40 90
			phase "transactions, $rate a second for $drawn s"
			bench -n -T "$drawn" -c 4 -R "$rate"
			;;
		2)
			between 20 60 && rate=$drawn
			between 40 80
			phase "look-ups, $rate a second for $drawn s"
			bench -n -S -T "$drawn" -c 4 -R "$rate"
			;;
		3)
			between 8 20
			phase "a rush of $drawn s"
			bench -n -T "$drawn" -c 8
			;;
		4)
			phase "a report over all accounts"
			ask "SELECT count(*) FROM (SELECT abalance, filler FROM pgbench_accounts ORDER BY filler, abalance, aid DESC) a"
			ask "VACUUM ANALYZE"
			;;
		5) pause 15 45 ;;
		esac
	done
}

# --- web: nginx under visitors at a drawn pace, and rushes of ab ---

# visitors COUNT RATE SECONDS: each fetches RATE pages a second, one at a time.
visitors() {
	local i end=$((SECONDS + $3))
	for ((i = 0; i < $1; i++)); do
		shuf -n $(($2 * $3)) --random-source=<(yes $RANDOM) "$pages" |
			sed "s|.*|url = \"http://$guest&\"\noutput = \"/dev/null\"|" |
			client timeout "$3" curl -s --compressed --rate "$2/s" -K - &
	done
	wait
	((SECONDS >= end)) || sleep $((end - SECONDS))
}

web() {
	local count
	pages=$(mktemp)
	trap 'rm -f "$pages"' EXIT
	# Text and pictures of a site are small, downloads are not.
	(cd "$root/usr" && find share lib include -type f -size -200k -readable -printf '/%p\n' | grep -v '[^A-Za-z0-9/._-]' | sort) >"$pages"
	while true; do
		between 0 4
		case $drawn in
		0)
			phase "a day of visitors"
			for count in 2 4 7 11 16 20 16 10 6 3; do visitors $count 4 10; done
			;;
		1)
			between 3 18 && count=$drawn
			between 30 80
			phase "$count visitors for $drawn s"
			visitors "$count" 4 "$drawn"
			;;
		2)
			between 10 25
			phase "a rush to one page for $drawn s"
			client ab -q -t "$drawn" -c 8 "http://$guest/share/common-licenses/GPL-3" | grep 'Requests per'
			;;
		3)
			phase "downloads"
			client curl -s -o /dev/null "http://$guest/lib/gcc/x86_64-linux-gnu/12/cc1" --limit-rate 4M
			client curl -s -o /dev/null "http://$guest/lib/gcc/x86_64-linux-gnu/12/cc1plus"
			;;
		4) pause 10 40 ;;
		esac
	done
}

# --- cache: Redis under its own benchmark ---

hit() { client redis-benchmark -h "$guest" -q "$@" | tr '\r' '\n' | grep 'per second'; }

cache() {
	local size turns
	pause 10 20
	while true; do
		between 0 6
		case $drawn in
		0)
			between 2 30 && size=$((drawn * 100))
			phase "fill with values of $size bytes"
			hit -t set -n 40000 -r 1000000 -d $size -c 10 -P 4
			;;
		1 | 2)
			between 20 60 && turns=$drawn
			phase "$turns short bursts"
			while ((turns-- > 0)); do
				between 100 1500
				hit -t get,set -n "$drawn" -r 1000000 -d 400 -c 4 >/dev/null
				between 2 9 && sleep "0.$drawn"
			done
			;;
		3)
			between 20000 60000
			phase "a rush of $drawn reads"
			hit -t get -n "$drawn" -r 1000000 -c 20
			;;
		4)
			phase "lists and sorted sets"
			hit -t lpush,lrange_100,zadd,sadd -n 3000 -r 10000 -c 4
			;;
		5)
			phase "drop part of the keys, write a snapshot"
			between 0 3
			((drawn > 0)) || client redis-cli -h "$guest" FLUSHALL
			client redis-cli -h "$guest" BGREWRITEAOF
			;;
		6) pause 10 40 ;;
		esac
	done
}

# --- build: the server that hands out sources and takes in results ---

build() {
	mkdir -p "$root/srv/source/result"
	chown -R www-data "$root/srv/source/result"
	cat >"$root/etc/nginx/sources.conf" <<-CONF
		user www-data; daemon off; worker_processes 1; pid /run/sources.pid;
		events {}
		http {
			access_log off; error_log stderr;
			client_max_body_size 100m;
			server {
				listen $host:8077; root /srv/source; autoindex on;
				location /result/ { dav_methods PUT; create_full_put_path on; }
			}
		}
	CONF
	phase "serving sources"
	client nginx -c /etc/nginx/sources.conf
}

"$workload"
