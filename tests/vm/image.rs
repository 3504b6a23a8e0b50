//! What a guest with a network is made of: the system of `tests/guest/image.rs`, with the drivers of virtio, and the end of the
//! transfers.

use std::path::Path;

use anyhow::Result;

use super::guest::{Parts, image};

/// What `/init` and the tests call, of busybox.
const APPLETS: &[&str] = &[
    "arp", "arping", "cat", "cut", "dmesg", "grep", "head", "insmod", "ip", "kill", "ls", "mount", "ping",
    "poweroff", "sed", "seq", "sh", "sleep", "stty", "tail", "tr", "uname", "wc",
];

/// Virtio on PCI, its network card, and VLANs. Packet sockets and IPv6 are built into the kernel.
const MODULES: &[&str] = &["8021q", "virtio_pci", "virtio_net"];

/// The first process of the guest: it brings the network up, and then does what it is told by the second serial line.
///
/// The address of eth0 comes from the last octet of its MAC, so that one image serves all guests. What is told is one line of a
/// shell; its output is followed by a line that no command prints, with the status. The guest ends by itself if it has been
/// forgotten.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
echo "guest: up, Linux $(uname -r)"
for module in $(cat /modules/order); do
    insmod /modules/$module.ko || echo "guest: module $module: not loaded"
done
dmesg -n 1
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore # a card answers for its own addresses alone
for eth in $(ls /sys/class/net); do
    [ "$eth" = lo ] || echo 0 >/proc/sys/net/ipv6/conf/$eth/accept_dad
done
ip link set dev lo up
if [ -d /sys/class/net/eth0 ]; then
    host=$(printf %d 0x$(cut -d: -f6 /sys/class/net/eth0/address))
    ip link set dev eth0 up
    ip address add 198.51.100.$host/24 dev eth0
    ip address add 2001:db8::$host/64 dev eth0
    echo "guest: eth0 has 198.51.100.$host"
fi
/bin/vm_peer serve &
(sleep 900; poweroff -f) &
stty -F /dev/ttyS1 raw -echo icanon # a line is there or not: a child that ends may cut short the reading of one that comes
exec 3>&1 </dev/ttyS1 >/dev/ttyS1
echo; echo "=== status 0"
while read -r line; do
    (eval "$line") </dev/null 2>&1 3>&-
    status=$?
    echo; echo "=== status $status"
done
echo "guest: nobody to listen to" >&3
poweroff -f
"#;

/// Echoes, datagrams and streams to other guests, over IPv4 and IPv6, compared octet by octet: all transfers at once.
///
/// Of echo requests some are small, some whole in any frame, and some in a jumbo frame alone, as are datagrams; 1473 octets are
/// one too many for a frame of Ethernet. The first question for a neighbour may be lost where a port has just come up.
/// One echo follows the other, because busybox has room for no more than its own answer, and gets those of all others.
const EXCHANGE: &str = r#"#!/bin/sh
# exchange IPV4,IPV6 ...
for pair; do
    v4=${pair%,*}
    for attempt in 1 2 3 4 5; do ping -q -c 1 -W 2 $v4 >/dev/null && break; done
    for octets in 56 1400 8000; do
        ping -q -c 1 -W 5 -s $octets $v4 >/dev/null || echo "failed $v4: ping of $octets"
    done
done
for pair; do
    v4=${pair%,*} v6=${pair#*,}
    (
        for words in "udp $v4 1 56 1400 1473 8000" "udp $v6 1400 8000" "tcp $v4 500000" "tcp $v6 100000"; do
            said=$(vm_peer $words) || { echo "failed $words: $said"; exit 1; }
        done
        echo "exchanged $v4"
    ) &
done
wait
"#;

/// The image, with the executable of `tests/vm/peer.rs`.
pub(crate) fn image(parts: &Parts, peer: &Path) -> Result<Vec<u8>> {
    let mut archive = image::system(&parts.kernel, &parts.busybox, INIT, APPLETS, MODULES)?;
    image::program(&mut archive, "bin/vm_peer", peer)?;
    archive.file("bin/exchange", EXCHANGE.as_bytes());
    Ok(archive.finish())
}
