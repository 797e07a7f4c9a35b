#!/bin/bash
# Makes a Debian 12 machine ready to build, run and test gnomon.
#
#   scripts/setup.sh            what building and running needs
#   scripts/setup.sh test       and the external engines the tests run against
#   scripts/setup.sh generate   and the compilers of messages and kernel programs
#
# Installs only what is missing, starts libvirt where no service manager does,
# and may be run any number of times.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

run_packages=(qemu-system-x86 libvirt-daemon libvirt-daemon-system
	libvirt-clients iproute2 kmod xz-utils)
test_packages=(prometheus victoria-metrics etcd-server)
generate_packages=(protobuf-compiler libprotobuf-dev clang llvm libbpf-dev)

socket=/run/libvirt/libvirt-sock
qemu_user=libvirt-qemu
apt_log=/tmp/gnomon-setup-apt.log

say() { echo "setup: $*"; }
die() {
	echo "setup: $*" >&2
	exit 1
}

# missing prints those of its arguments that are not installed.
missing() {
	local installed package
	installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
	for package in "$@"; do
		grep -qx "$package installed" <<<"$installed" || echo "$package"
	done
}

apt_run() {
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
		-o Dpkg::Options::=--force-confold "$@" >"$apt_log" 2>&1
}

# hold_services keeps packages from starting their services while they are
# installed: the tests start engines of their own on ports of their own.
hold_services() {
	[[ -e /usr/sbin/policy-rc.d ]] && return
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

install_packages() {
	local want=("$@")
	[[ ${#want[@]} -gt 0 ]] || return 0
	say "installing ${want[*]}"
	command -v apt-get >/dev/null ||
		die "this is not Debian (no apt-get); install the equivalents of: ${want[*]}"
	# The lists of a machine may be missing or too old to name files that exist.
	if ! apt_run install -y --no-install-recommends "${want[@]}"; then
		say "refreshing the package lists"
		apt_run update ||
			die "apt-get update failed; is there a network? its output: $apt_log"
		apt_run install -y --no-install-recommends "${want[@]}" || {
			tail -n 5 "$apt_log" >&2
			die "apt-get could not install ${want[*]}; its output: $apt_log"
		}
	fi
}

# allow_kvm lets QEMU's user open /dev/kvm. Where it exists and cannot be opened
# libvirt probes QEMU again at every start, which then takes a minute.
allow_kvm() {
	[[ -c /dev/kvm ]] || return 0
	setpriv --reuid "$qemu_user" --regid "$qemu_user" --init-groups \
		test -r /dev/kvm -a -w /dev/kvm 2>/dev/null && return
	say "/dev/kvm is closed to the user $qemu_user: giving it to the group kvm, mode 0660"
	chgrp kvm /dev/kvm && chmod 0660 /dev/kvm ||
		say "could not change /dev/kvm: starting VMs may take a minute each"
}

answers() { virsh -c qemu:///system version >/dev/null 2>&1; }

start_libvirt() {
	answers && return
	if [[ -d /run/systemd/system ]]; then
		say "starting libvirtd through systemd"
		systemctl start libvirtd.service ||
			die "systemd could not start libvirtd; see: journalctl -u libvirtd"
	else
		# Without virtlogd no domain with a serial console can be defined.
		if ! pgrep -x virtlogd >/dev/null; then
			say "starting virtlogd"
			virtlogd -d || die "virtlogd did not start"
		fi
		if ! pgrep -x libvirtd >/dev/null; then
			say "starting libvirtd"
			libvirtd -d || die "libvirtd did not start"
		fi
	fi
	for _ in $(seq 100); do
		answers && return
		sleep 0.1
	done
	die "libvirtd runs but does not answer on $socket; try: virsh -c qemu:///system version"
}

# check_go fails where the Go toolchain is missing; any release since 1.21
# fetches the one that go.mod names.
check_go() {
	command -v go >/dev/null ||
		die "no Go toolchain in PATH; install Go 1.26 or later"
}

main() {
	local packages=("${run_packages[@]}") need
	for arg in "$@"; do
		case "$arg" in
		test) packages+=("${test_packages[@]}") ;;
		generate) packages=("${generate_packages[@]}") ;;
		*) die "unknown argument $arg: want test or generate" ;;
		esac
	done
	mapfile -t need < <(missing "${packages[@]}")
	if [[ $EUID -ne 0 ]]; then
		[[ ${#need[@]} -eq 0 && ${1-} == generate ]] && return
		die "not root: installing packages and running VMs on the system's libvirt needs it"
	fi
	check_go
	if [[ " ${need[*]} " =~ \ (prometheus|victoria-metrics|etcd-server)\  ]]; then
		local engines=()
		mapfile -t engines < <(missing "${test_packages[@]}")
		mapfile -t need < <(missing "${run_packages[@]}")
		install_packages "${need[@]}"
		hold_services
		need=("${engines[@]}")
	fi
	install_packages "${need[@]}"
	[[ ${1-} == generate ]] && return
	allow_kvm
	start_libvirt
}

main "$@"
