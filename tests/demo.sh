#!/usr/bin/env bash
# Tapway at work, as a script to read along: what it runs is what you would type.
#
#               tapwayd, in a namespace of its own
#   ┌────────────────────────── br0 ──────────────────────────┐
#   │ access 10   access 10  │ access 20   access 20 │ trunk 10,20, native 10
#   └───┬────────────┬────────────┬────────────┬────────────┬─┘
#     eth0         eth0         eth0         eth0         eth0     each in a namespace of its own
#     web .1       db .2        red .3       blue .4      trunk .5
#
# All five are in the subnet 198.51.100.0/24, so it is the VLANs that keep them apart.
# Then two more sites join VLAN 10 by VXLAN, each a host of its own on an underlay:
#
#     switch: the above ──── 203.0.113.1 ══╗
#     east: tapwayd, far .6  203.0.113.2 ══╬══ VNI 1010
#     kernel: vxlan0, .7     203.0.113.3 ══╝
#
# Exits non-zero if anything is not as it should be. Takes everything away at its end.
# usage: demo.sh [DIRECTORY OF tapwayd AND tapwayctl]
set -euo pipefail

bin=$(realpath "${1:-target/release}")
for program in tapwayd tapwayctl; do
    [ -x "$bin/$program" ] || { echo "no $bin/$program; run make demo" >&2; exit 1; }
done
for command in ip ping iperf3; do
    command -v $command >/dev/null || { echo "missing: $command; run make demo" >&2; exit 1; }
done

# An ordinary user is root in a user namespace of their own, with a /run of their own for the names of namespaces.
if [ "$(id -u)" != 0 ]; then
    exec unshare --user --map-root-user --net --mount bash -c 'mount -t tmpfs tmpfs /run && exec "$@"' - "$0" "$bin"
fi

dir=$(mktemp -d)
export TAPWAY_SOCKET=$dir/tapway.sock
id=demo-$$ # namespaces are $id-switch, $id-web, …
hosts="web db red blue trunk"
sites="underlay east far kernel"
started=()

cleanup() {
    local status=$?
    [ $status = 0 ] || [ $status = 130 ] || { echo; echo "The daemon's log:"; tail -n 30 "$dir/log" 2>/dev/null; } >&2
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
        kill -9 "$pid" # it had five seconds
    done
    for host in switch $hosts $sites; do
        ip netns delete "$id-$host" 2>/dev/null || true
    done
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
in_host() { ip netns exec "$id-$1" "${@:2}"; } # HOST COMMAND...; in the background, $! would be that of a shell

says() { # JSON COMMAND...: whether the command prints this, whatever its white space
    local out
    out=$("${@:2}")
    [[ ${out//[[:space:]]/} == *"$1"* ]]
}

address() { # HOST
    case $1 in web) echo 198.51.100.1 ;; db) echo 198.51.100.2 ;; red) echo 198.51.100.3 ;;
    blue) echo 198.51.100.4 ;; trunk) echo 198.51.100.5 ;; far) echo 198.51.100.6 ;; kernel) echo 198.51.100.7 ;; esac
}
mac() { printf '02:00:00:00:00:0%s' "$(address "$1" | cut -d. -f4)"; } # HOST

reaches() { # FROM TO
    in_host "$1" ping -q -c 3 -i 0.2 -W 2 "$(address "$2")" >"$dir/ping" || fail "$1 does not reach $2"
    proved "$1 reaches $2: $(tail -n 1 "$dir/ping")"
}
isolated() { # FROM TO
    ! in_host "$1" ping -q -c 2 -i 0.2 -W 1 "$(address "$2")" >"$dir/ping" || fail "$1 reaches $2, which it must not"
    proved "$1 does not reach $2"
}

say 'Five hosts, and a place for the switch: network namespaces'
for host in switch $hosts; do
    ip netns add "$id-$host"
    in_host "$host" ip link set dev lo up
done
echo "switch $hosts"

say 'The daemon'
ip netns exec "$id-switch" "$bin/tapwayd" >"$dir/log" 2>&1 &
started+=($!)
show tapwayctl status --wait 10s

say 'A bridge with two VLANs; each port is a TAP that appears as eth0 in the namespace of its host'
tap() { # HOST VLAN FLAGS...
    show tapwayctl port add "$1" --bridge br0 --netns "$id-$1" --ifname eth0 \
        --address "$(address "$1")/24" --mac "$(mac "$1")" "${@:2}"
}
show tapwayctl bridge add br0
tap web --access 10
tap db --access 10
tap red --access 20
tap blue --access 20
tap trunk --trunk 10,20 --native 10
show tapwayctl port list

say 'Inside a VLAN hosts reach each other'
reaches web db
reaches red blue
reaches trunk web

say 'From VLAN to VLAN they do not'
isolated web red
isolated blue db
isolated trunk red

say 'The switch has learned who is where'
show tapwayctl fdb list
says '"vlan":10,"mac":"'"$(mac web)"'","port":"web"' tapwayctl fdb list --json ||
    fail 'web is not known in VLAN 10 on its port'
proved 'web is known in VLAN 10 behind its port'

say 'What would it do with a frame of web for db? (Nothing is sent.)'
hex=$(printf '%s%s88b5' "$(mac db)" "$(mac web)" | tr -d :)$(printf '%092d' 0)
show tapwayctl trace --port web --frame "$hex"
says '"verdict":"forward"' tapwayctl trace --port web --frame "$hex" --json ||
    fail 'the frame would not be forwarded'
proved 'forwarded to db alone'

say 'And with the same frame, tagged with VLAN 20 by web?'
tagged=${hex:0:24}81000014${hex:24}
show tapwayctl trace --port web --frame "$tagged"
says '"reason":"vlan_not_member"' tapwayctl trace --port web --frame "$tagged" --json ||
    fail 'the tagged frame would not be dropped as vlan_not_member'
proved 'dropped, with the reason'

say 'A transfer from web to db: super-frames with partial checksums go through as they are'
ip netns exec "$id-db" iperf3 --server --one-off --forceflush --bind "$(address db)" >"$dir/iperf3" 2>&1 &
started+=($!)
for _ in {1..50}; do grep -qs listening "$dir/iperf3" && break; sleep 0.1; done
in_host web iperf3 --client "$(address db)" --time 3 | grep -E 'sender|receiver' || fail 'the transfer failed'
proved 'web sent to db for three seconds'

say 'Isolated ports of one VLAN reach only ports that are not isolated'
show tapwayctl port set red --isolated on
show tapwayctl port set blue --isolated on
isolated red blue

say 'Every frame that did not leave is counted, by port and reason'
show tapwayctl stats
show tapwayctl drops
says '"port":"red","reason":"isolated"' tapwayctl drops --json || fail 'the drops do not say isolated'
proved 'what red could not send is counted as isolated'

say 'Three sites on an underlay, whose MTU leaves room for the 50 octets of VXLAN'
for host in $sites; do
    ip netns add "$id-$host"
    in_host "$host" ip link set dev lo up
done
in_host underlay ip link add br0 type bridge mcast_snooping 0
in_host underlay ip link set dev br0 up
n=0
for site in switch east kernel; do
    n=$((n + 1))
    in_host underlay ip link add "$site" mtu 1550 type veth peer name uplink mtu 1550 netns "$id-$site"
    in_host underlay ip link set dev "$site" master br0 up
    in_host "$site" ip address add 203.0.113.$n/24 dev uplink
    in_host "$site" ip link set dev uplink up
done
echo 'switch 203.0.113.1, east 203.0.113.2, kernel 203.0.113.3'

say 'A tunnel port joins VLAN 10 to the others; every site names every other'
ip netns exec "$id-east" "$bin/tapwayd" --socket "$dir/east.sock" >"$dir/east.log" 2>&1 &
started+=($!)
tapwayctl --socket "$dir/east.sock" status --wait 10s >/dev/null
show tapwayctl port add sites --bridge br0 --type vxlan --vlan-vni 10=1010 --local 203.0.113.1 \
    --remote 203.0.113.2 --remote 203.0.113.3
show tapwayctl --socket "$dir/east.sock" bridge add br0
show tapwayctl --socket "$dir/east.sock" port add far --bridge br0 --netns "$id-far" --ifname eth0 \
    --address "$(address far)/24" --mac "$(mac far)"
show tapwayctl --socket "$dir/east.sock" port add sites --bridge br0 --type vxlan --vni 1010 --local 203.0.113.2 \
    --remote 203.0.113.1 --remote 203.0.113.3

say "The third has the kernel's own vxlan device"
show ip -n "$id-kernel" link add vxlan0 address "$(mac kernel)" type vxlan id 1010 dstport 4789 \
    local 203.0.113.3 dev uplink
for remote in 203.0.113.1 203.0.113.2; do
    show bridge -n "$id-kernel" fdb append 00:00:00:00:00:00 dev vxlan0 dst $remote
done
show ip -n "$id-kernel" address add "$(address kernel)/24" dev vxlan0
show ip -n "$id-kernel" link set dev vxlan0 up

say 'Everybody in VLAN 10 reaches everybody, at every site'
reaches web far
reaches web kernel
reaches far kernel
reaches kernel db
isolated red far

say 'The switch has learned behind which remote they are, and traces what stands around a frame'
show tapwayctl fdb list --vlan 10
says '"mac":"'"$(mac far)"'","port":"sites","remote":"203.0.113.2"' tapwayctl fdb list --json ||
    fail 'far is not known behind the remote 203.0.113.2'
says '"mac":"'"$(mac kernel)"'","port":"sites","remote":"203.0.113.3"' tapwayctl fdb list --json ||
    fail 'kernel is not known behind the remote 203.0.113.3'
proved 'far and kernel are known behind their remotes'
hex=$(printf '%s%s88b5' "$(mac far)" "$(mac web)" | tr -d :)$(printf '%092d' 0)
show tapwayctl trace --port web --frame "$hex"
says '"vni":1010' tapwayctl trace --port web --frame "$hex" --json || fail 'the frame would not leave with VNI 1010'
proved 'to far alone, in VXLAN with VNI 1010'

say 'A transfer from web to far, through both switches and the tunnel'
ip netns exec "$id-far" iperf3 --server --one-off --forceflush --bind "$(address far)" >"$dir/iperf3" 2>&1 &
started+=($!)
for _ in {1..50}; do grep -qs listening "$dir/iperf3" && break; sleep 0.1; done
in_host web iperf3 --client "$(address far)" --time 2 | grep -E 'sender|receiver' || fail 'the transfer failed'
proved 'web sent to far for two seconds'

say 'A VNI that nobody has is counted on the endpoint, as no port is to blame'
in_host kernel ip link add stray type vxlan id 666 dstport 4789 local 203.0.113.3 remote 203.0.113.1 dev uplink
in_host kernel ip address add 198.51.100.129/30 dev stray
in_host kernel ip link set dev stray up
in_host kernel ping -q -c 1 -W 1 198.51.100.130 >"$dir/ping" || true # it only has to send
show tapwayctl drops
says '"reason":"vni_unknown"' tapwayctl drops --json || fail 'the drops do not say vni_unknown'
proved 'what came with VNI 666 is counted as vni_unknown'

say "That was it: $shown things shown. For a switch of your own: tapwayd --help, tapwayctl --help"
