#!/bin/bash
# The init of a VM whose trace is recorded. The kernel's command line says what
# runs in it (workload=…) and how its draws begin (seed=…).
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

parameter() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

subnet=10.77.$(parameter subnet)
host=$subnet.1
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
modprobe -a virtio_net virtio_balloon
ip link set lo up
ip link set eth0 up
ip address add "$subnet.2/24" dev eth0
# What most distributions write back after: half a minute.
sysctl -q vm.dirty_background_ratio=10 vm.dirty_ratio=20

database() {
	local dir=/etc/postgresql/15/main
	echo "host all all $host/32 trust" >>$dir/pg_hba.conf
	printf '%s\n' "listen_addresses = '*'" 'shared_buffers = 96MB' 'work_mem = 8MB' \
		'max_wal_size = 192MB' 'checkpoint_timeout = 2min' >>$dir/postgresql.conf
	pg_ctlcluster 15 main start
	su postgres -c 'createuser -s load; createdb -O load bench'
}

web() {
	cat >/etc/nginx/sites-enabled/default <<'SITE'
server {
	listen 80;
	root /usr;
	gzip on;
	gzip_types *;
	gzip_comp_level 4;
	access_log /var/log/nginx/access.log combined buffer=16k flush=5s;
}
SITE
	nginx
}

cache() {
	mkdir -p /var/lib/redis
	redis-server --bind 0.0.0.0 --protected-mode no --dir /var/lib/redis \
		--maxmemory 192mb --maxmemory-policy allkeys-lru \
		--appendonly yes --appendfsync everysec --save '120 10000' \
		--daemonize yes
}

# build does what a build server's worker does: waits for a job, fetches the
# sources, unpacks, compiles, tests, packs the result and sends it back.
build() {
	RANDOM=$(parameter seed)
	local jobs=(lua5.4 zlib bzip2 zlib bzip2) job
	# The recorder listens once it records.
	until curl -sf -o /dev/null http://$host:8077/; do sleep 1; done
	while true; do
		job=${jobs[RANDOM % ${#jobs[@]}]}
		one_build "$job" >/dev/console 2>&1
		sleep $((5 + RANDOM % 40))
	done
}

one_build() {
	local work=/var/build archive
	echo "building $1"
	rm -rf $work && mkdir -p $work && cd $work || return
	for archive in $(curl -s http://$host:8077/ | grep -oE "\"$1_[^\"]*(orig[^\"]*|debian)\.tar\.[a-z0-9]+\"" | tr -d '"'); do
		curl -sO "http://$host:8077/$archive"
	done
	for archive in *.tar.*; do tar xf "$archive"; done
	cd "$(find . -mindepth 1 -maxdepth 1 -type d -name "*[0-9]*" | head -n 1)" || return
	case $1 in
	zlib) ./configure && make && make check ;;
	bzip2) make && make test ;;
	lua5.4) make linux ;;
	esac 2>&1 | tail -n 2
	tar czf /var/build/result.tar.gz . && curl -s -T /var/build/result.tar.gz "http://$host:8077/result/$1.tar.gz"
	echo "built $1"
}

workload=$(parameter workload)
"$workload"
echo "workload $workload is up" >/dev/console
while true; do sleep 1000; done
