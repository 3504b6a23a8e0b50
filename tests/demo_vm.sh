#!/usr/bin/env bash
# Two virtual machines at the switch, each by a port of another kind, as a script to read along.
#
#              tapwayd, in a namespace of its own
#   ┌──────────────────── br0, VLAN 10 ────────────────────┐
#   │ vm1: type netdev                   vm2: type stream  │
#   └──────┬──────────────────────────────────────┬────────┘
#     the interface of a TAP               a Unix socket
#     QEMU ── eth0 198.51.100.1            QEMU ── eth0 198.51.100.2
#
# The guests are a kernel of Debian, busybox, and no disk (.ci/guest); what they print comes from their consoles.
# Exits non-zero if anything is not as it should be. Takes everything away at its end.
# usage: demo_vm.sh [DIRECTORY OF tapwayd, tapwayctl AND examples/vm_image]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=$(realpath "${1:-target/release}")
for program in tapwayd tapwayctl examples/vm_image examples/vm_peer; do
    [ -x "$bin/$program" ] || { echo "no $bin/$program; run make demo VM=1" >&2; exit 1; }
done
for command in ip qemu-system-x86_64; do
    command -v $command >/dev/null || { echo "missing: $command; run make demo VM=1" >&2; exit 1; }
done

# An ordinary user is root in a user namespace of their own, with a /run of their own for the names of namespaces.
if [ "$(id -u)" != 0 ]; then
    exec unshare --user --map-root-user --net --mount bash -c 'mount -t tmpfs tmpfs /run && exec "$@"' - "$0" "$bin"
fi

dir=$(mktemp -d)
export TAPWAY_SOCKET=$dir/tapway.sock
id=demo-$$ # the namespace of the switch is $id-switch
started=()

cleanup() {
    local status=$?
    [ $status = 0 ] || [ $status = 130 ] || {
        echo
        for log in "$dir"/log "$dir"/*.console "$dir"/*.qemu; do
            [ ! -s "$log" ] || { echo "The end of ${log##*/}:"; tail -n 20 "$log"; }
        done
    } >&2
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
        kill -9 "$pid" # it had five seconds
    done
    ip netns delete "$id-switch" 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' plain=$'\e[0m'; else bold='' green='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '$ %s\n' "$*"; "$@"; }
shown=0
proved() { shown=$((shown + 1)); printf '%s%s%s\n' "$green" "✓ $*" "$plain"; }
fail() { echo "demo: $*" >&2; exit 1; }
tapwayctl() { "$bin/tapwayctl" "$@"; }

says() { # JSON COMMAND...: whether the command prints this, whatever its white space
    local out
    out=$("${@:2}")
    [[ ${out//[[:space:]]/} == *"$1"* ]]
}

declare -A keyboard screen
boot() { # GUEST
    mkfifo "$dir/$1.in" "$dir/$1.out"
    # The words of the port, one option a line: what `tapwayctl port show` says is what QEMU gets.
    local words
    read -r -d '' -a words < <(tapwayctl port show "$1" --for qemu 2>/dev/null) || true
    printf '$ qemu-system-x86_64 … $(tapwayctl port show %s --for qemu)\n' "$1"
    ip netns exec "$id-switch" qemu-system-x86_64 "${machine[@]}" "${words[@]}" -append 'console=ttyS0 panic=-1 no_timer_check quiet' \
        -serial "file:$dir/$1.console" -serial "pipe:$dir/$1" >"$dir/$1.qemu" 2>&1 &
    started+=($!)
    exec {keyboard[$1]}<>"$dir/$1.in" {screen[$1]}<>"$dir/$1.out"
}
answers() { # GUEST: shows what it prints until the command has ended, with the status of that
    local line
    while IFS= read -r -t 120 line <&"${screen[$1]}"; do
        [[ $line != '=== status '* ]] || return "${line#=== status }"
        [ -z "$line" ] || printf '%s\n' "$line"
    done
    fail "$1 says nothing more"
}
on() { # GUEST COMMAND: types it at the guest's console
    printf '%s# %s\n' "$1" "$2"
    printf '%s\n' "$2" >&"${keyboard[$1]}"
    answers "$1"
}

say 'The daemon, and a bridge'
ip netns add "$id-switch"
ip -n "$id-switch" link set dev lo up
ip netns exec "$id-switch" "$bin/tapwayd" >"$dir/log" 2>&1 &
started+=($!)
show tapwayctl status --wait 10s
show tapwayctl bridge add br0

say 'A port for each VM, and what its QEMU is to be told'
show tapwayctl device add vm1 --type tap
show tapwayctl port add vm1 --bridge br0 --type netdev --queues 1 --access 10 --secure mac=02:00:00:00:00:01
show tapwayctl port add vm2 --bridge br0 --type stream --path "$dir/vm2.sock" --access 10 --secure mac=02:00:00:00:00:02
show tapwayctl port show vm1 --for qemu
show tapwayctl port show vm2 --for qemu

say 'Two VMs, which takes some seconds'
mapfile -t machine < <("$bin/examples/vm_image" "$dir/initrd")
[ ${#machine[@]} -gt 0 ] || fail 'there is no image for a guest'
boot vm1
boot vm2
answers vm1 && answers vm2 || fail 'a guest is not well'
proved 'both are up'
show tapwayctl port list
says '"oper":"up"' tapwayctl port show vm1 --json && says '"oper":"up"' tapwayctl port show vm2 --json ||
    fail 'a port is not up'

say 'From the console of vm1'
on vm1 'ip address show dev eth0 | grep -w inet' || fail 'vm1 has no address'
on vm1 'ping -c 3 198.51.100.2' || fail 'vm1 does not reach vm2'
proved 'vm1 reaches vm2'

say 'From the console of vm2: larger than a frame, and over IPv6'
on vm2 'ping -c 2 -s 8000 198.51.100.1' || fail 'vm2 does not reach vm1 with 8000 octets'
on vm2 'ping -c 2 2001:db8::1' || fail 'vm2 does not reach vm1 over IPv6'
proved 'vm2 reaches vm1'

say 'A megabyte there and another back, at once, compared octet by octet'
on vm1 'time vm_peer tcp 198.51.100.2 1000000' || fail 'the transfer is not whole'
proved 'both are what was sent'

say 'The switch has learned who is where'
show tapwayctl fdb list
says '"vlan":10,"mac":"02:00:00:00:00:01","port":"vm1"' tapwayctl fdb list --json ||
    fail 'vm1 is not known in VLAN 10 on its port'
proved 'vm1 is known behind its port'

say 'Into another VLAN, while both run'
show tapwayctl port set vm2 --access 20
! on vm1 'ping -c 2 -W 1 198.51.100.2' || fail 'vm1 reaches vm2, which it must not'
proved 'vm1 does not reach vm2'
show tapwayctl port set vm2 --access 10
on vm1 'ping -c 2 198.51.100.2' || fail 'vm1 does not reach vm2 any more'
proved 'vm1 reaches vm2 again'

say 'A VM that takes the address of another'
on vm2 'ip link set dev eth0 address 02:00:00:00:00:01; ping -c 2 -W 1 198.51.100.1' && fail 'vm2 is heard'
show tapwayctl drops vm2
says '"port":"vm2","reason":"secure_mac"' tapwayctl drops --json || fail 'the drops do not say why'
proved 'is not heard: --secure has let in the MAC address of vm2 alone'

say "That was it: $shown things shown. docs/guide/vms.md has every kind of port for VMs."
