#!/bin/bash
# Makes the namespaces it is started in a host of its own, and is then its libvirtd:
#
#   ip netns exec NETNS unshare --mount --uts --cgroup --propagation private node.sh NAME ROOT [CONTROLLER...]
#
# The host's files are below ROOT. CONTROLLERs are those of a machine with control
# groups of version 1.
set -euo pipefail
name=$1 root=$2
shift 2
hostname "$name"

# /sys is new here, without control groups: those it gets begin at its own.
if [[ $# -eq 0 ]]; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
	mount -t tmpfs tmpfs /sys/fs/cgroup
fi
for controller in "$@"; do
	mkdir "/sys/fs/cgroup/$controller"
	case $controller in
	unified) mount -t cgroup2 cgroup2 "/sys/fs/cgroup/$controller" ;;
	systemd) mount -t cgroup -o none,name=systemd systemd "/sys/fs/cgroup/$controller" ;;
	*) mount -t cgroup -o "$controller" "$controller" "/sys/fs/cgroup/$controller" ;;
	esac
done

folders=(run/libvirt var/lib/libvirt etc/libvirt var/log/libvirt var/cache/libvirt)
for folder in "${folders[@]}"; do
	mkdir -p "$root/$folder"
done
cat >"$root/etc/libvirt/libvirtd.conf" <<CONF
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
log_outputs = "3:file:$root/libvirtd.log"
CONF
# virtlogd is the machine's, and its socket not here.
cat >"$root/etc/libvirt/qemu.conf" <<CONF
stdio_handler = "file"
security_driver = "none"
CONF
# What libvirt knows of QEMU takes it ten seconds to find out.
cp -a /var/cache/libvirt/. "$root/var/cache/libvirt/" 2>/dev/null || true
cp "/etc/hosts" "$root/hosts"
echo "127.0.1.1 $name" >>"$root/hosts"
mount --bind "$root/hosts" /etc/hosts
for folder in "${folders[@]}"; do
	mount --bind "$root/$folder" "/$folder"
done
exec libvirtd --listen --pid-file "$root/libvirtd.pid"
