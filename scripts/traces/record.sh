#!/bin/bash
# Records traces/debian-1s: VMs that run Debian's own software under a load that
# varies, with nothing limiting them.
#
#   scripts/traces/record.sh [database|web|build|cache]...    all, one after another
#
# SECONDS_EACH is how long each is recorded, SEED what its load is drawn from.
# Needs root, libvirt and bin/gnomon, and installs mmdebstrap; the first run makes
# the VMs' system in WORK, which takes minutes, and later ones reuse it.
set -euo pipefail
cd "$(dirname "$0")/../.."

SECONDS_EACH=${SECONDS_EACH:-600}
SEED=${SEED:-1}
WORK=${WORK:-/var/tmp/gnomon-traces}
OUT=${OUT:-traces/debian-1s}

here=scripts/traces
root=$WORK/root
packages=linux-image-cloud-amd64,initramfs-tools,iproute2,procps,curl,build-essential
packages+=,postgresql,nginx-light,redis-server,redis-tools,apache2-utils
sources="lua5.4 zlib bzip2"

say() { echo "record: $*"; }
die() {
	echo "record: $*" >&2
	exit 1
}

# make_system makes the tree that VMs run from and the clients too.
make_system() {
	[[ -e $root/.done ]] && return
	say "making the VMs' system in $root"
	rm -rf "$root"
	mkdir -p "$root"
	# The tree holds the sources that are compiled, and no other data.
	mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
		--customize-hook="mkdir -p \"\$1/srv/source\" && chroot \"\$1\" sh -c 'cd /srv/source && apt-get -qq source --download-only $sources'" \
		--format=directory bookworm "$root" \
		"deb http://deb.debian.org/debian bookworm main" \
		"deb-src http://deb.debian.org/debian bookworm main"
	touch "$root/.done"
}

# make_disk makes the disk of one VM: the tree, with guest.sh as its init.
make_disk() {
	install -m 755 $here/guest.sh "$root/usr/local/sbin/workload"
	rm -f "$1"
	truncate -s 4G "$1"
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$1"
}

# boot NAME WORKLOAD SUBNET starts a VM with nothing limited.
boot() {
	local kernel initrd
	kernel=$(echo "$root"/boot/vmlinuz-*)
	initrd=$(echo "$root"/boot/initrd.img-*)
	make_disk "$WORK/$1.img"
	cat >"$WORK/$1.xml" <<XML
<domain type='$accel'>
  <name>$1</name>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>$kernel</kernel>
    <initrd>$initrd</initrd>
    <cmdline>console=ttyS0 quiet root=/dev/vda rw net.ifnames=0 init=/usr/local/sbin/workload workload=$2 subnet=$3 seed=$SEED</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='threads'/>
      <source file='$WORK/$1.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <source><ip address='10.77.$3.1' prefix='24'/></source>
      <target dev='gntrace$3'/>
      <model type='virtio'/>
    </interface>
    <memballoon model='virtio'><stats period='1'/></memballoon>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'><source path='$WORK/$1.log'/></serial>
  </devices>
</domain>
XML
	virsh -q create "$WORK/$1.xml" >/dev/null
}

# wait_port ADDRESS PORT waits until the VM's software answers.
wait_port() {
	for _ in $(seq 600); do
		timeout 1 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && return
		sleep 0.5
	done
	die "nothing answers on $1:$2; see $WORK/*.log"
}

clean_up() {
	[[ -n ${load-} ]] && kill -- "-$load" 2>/dev/null
	[[ -n ${vm-} ]] && virsh -q destroy "$vm" >/dev/null 2>&1
	[[ -n ${vm-} ]] && rm -f "$WORK/$vm.img"
	return 0
}

# record WORKLOAD boots, loads and records one VM.
record() {
	local workload=$1 subnet port file="$OUT/$1.csv.gz"
	case $workload in
	database) subnet=1 port=5432 ;;
	web) subnet=2 port=80 ;;
	build) subnet=3 port=0 ;;
	cache) subnet=4 port=6379 ;;
	*) die "unknown workload $workload: want database, web, build or cache" ;;
	esac
	vm=gnomon-trace-$workload
	virsh -q destroy "$vm" >/dev/null 2>&1 || true
	say "$workload: booting"
	boot "$vm" "$workload" "$subnet"
	[[ $port -eq 0 ]] || wait_port "10.77.$subnet.2" "$port"
	rm -rf "$WORK/$workload"
	# A group of its own, to end all of it.
	set -m
	$here/load.sh "$workload" "$subnet" "$root" "$SEED" >"$WORK/$workload.load.log" 2>&1 &
	load=$!
	set +m
	say "$workload: recording for $SECONDS_EACH s"
	bin/gnomon record --vm "$vm" --interval 1s --duration "${SECONDS_EACH}s" --out "$WORK/$workload"
	clean_up
	vm='' load=''
	mkdir -p "$OUT"
	gzip -9n <"$WORK/$workload/gnomon-trace-$workload.csv" >"$file.new"
	mv "$file.new" "$file"
	say "$workload: $(zcat "$file" | tail -n +2 | wc -l) rows, $(stat -c %s "$file") bytes in $file"
}

# manifest tells what the recorded VMs have, for the laboratory.
manifest() {
	local file
	{
		echo "file,ncpu,mem_total_bytes,rows"
		for file in "$OUT"/*.csv.gz; do
			echo "$(basename "$OUT")/$(basename "$file"),1,$((512 << 20)),$(zcat "$file" | tail -n +2 | wc -l)"
		done
	} >"$OUT/../manifest.csv"
}

[[ $EUID -eq 0 ]] || die "not root: making a system and starting VMs on the system's libvirt needs it"
[[ -x bin/gnomon ]] || die "bin/gnomon is missing: run make build"
command -v virsh >/dev/null || die "virsh is missing: run make setup"
command -v mmdebstrap >/dev/null ||
	apt-get -q install -y --no-install-recommends mmdebstrap e2fsprogs >/dev/null ||
	die "apt-get could not install mmdebstrap"
accel=${ACCEL:-qemu}
mkdir -p "$WORK"
chmod 755 "$WORK"
make_system
trap clean_up EXIT
[[ $# -gt 0 ]] || set -- database web build cache
for workload in "$@"; do record "$workload"; done
manifest
