//! Every type of port with every monitor: the words, or the sentence that says why there are none.

use super::*;

fn end(text: &str) -> SwitchEnd {
    let spec: PortSpec = toml::from_str(&format!("name = \"vm1\"\nbridge = \"br0\"\n{text}")).unwrap();
    assert_eq!(spec.check(), [""; 0], "{text}");
    let mtu = spec.options.mtu.unwrap_or(USUAL_MTU);
    SwitchEnd::new(&spec, 1, mtu, "2G".parse().unwrap())
}

const MAC: &str = "secure = \"mac=02:00:00:00:00:07\"\n";

fn told(text: &str, monitor: Monitor) -> String {
    attach(&end(text), monitor).unwrap().text()
}

fn notes(text: &str, monitor: Monitor) -> String {
    attach(&end(text), monitor).unwrap().notes.join("\n")
}

fn refused(text: &str, monitor: Monitor) -> String {
    attach(&end(text), monitor).unwrap_err().to_string()
}

#[test]
fn qemu_opens_the_tap_of_a_netdev_port() {
    let port = format!("type = \"netdev\"\nifname = \"tap7\"\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Qemu),
        "-netdev tap,id=vm1,ifname=tap7,script=no,downscript=no,vnet_hdr=on\n\
         -device virtio-net-pci,netdev=vm1,mac=02:00:00:00:00:07\n"
    );
    assert_eq!(notes(&port, Monitor::Qemu), "");
    let port = "type = \"netdev\"\nqueues = 4\nmtu = 9000\noffload = false\nnetns = \"blue\"";
    assert_eq!(
        told(port, Monitor::Qemu),
        "-netdev tap,id=vm1,ifname=vm1,script=no,downscript=no,vnet_hdr=off,queues=4\n\
         -device virtio-net-pci,netdev=vm1,mq=on,vectors=10,host_mtu=9000\n"
    );
    let notes = notes(port, Monitor::Qemu);
    assert!(notes.contains("same MAC address") && notes.contains("namespace blue"), "{notes}");
}

#[test]
fn qemu_goes_to_the_socket_of_a_stream_port_or_waits_for_it() {
    let port = format!("type = \"stream\"\npath = \"/run/vm1.sock\"\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Qemu),
        "-netdev stream,id=vm1,server=off,addr.type=unix,addr.path=/run/vm1.sock\n\
         -device virtio-net-pci,netdev=vm1,mac=02:00:00:00:00:07\n"
    );
    assert!(notes(&port, Monitor::Qemu).contains("reconnect-ms=1000"));
    let port = format!("{port}connect = true");
    assert!(told(&port, Monitor::Qemu).contains("stream,id=vm1,server=on,addr.type=unix"));
    assert_eq!(notes(&port, Monitor::Qemu), "");
}

#[test]
fn the_two_sockets_of_a_dgram_port_change_sides_for_qemu() {
    let port = format!("type = \"dgram\"\npath = \"/run/switch\"\npeer_path = \"/run/vm\"\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Qemu),
        "-netdev dgram,id=vm1,local.type=unix,local.path=/run/vm,remote.type=unix,remote.path=/run/switch\n\
         -device virtio-net-pci,netdev=vm1,mac=02:00:00:00:00:07\n"
    );
    let alone = format!("type = \"dgram\"\npath = \"/run/switch\"\n{MAC}");
    assert!(told(&alone, Monitor::Qemu).contains("local.path=/run/switch.vm,remote.type=unix"));
}

#[test]
fn qemu_shares_its_memory_with_a_vhost_user_port() {
    let port = format!("type = \"vhost-user\"\npath = \"/run/vm1.sock\"\nqueues = 2\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Qemu),
        "-object memory-backend-memfd,id=mem-vm1,size=2G,share=on\n\
         -machine memory-backend=mem-vm1\n\
         -chardev socket,id=chr-vm1,path=/run/vm1.sock,reconnect=1\n\
         -netdev vhost-user,id=vm1,chardev=chr-vm1,queues=2\n\
         -device virtio-net-pci,netdev=vm1,mac=02:00:00:00:00:07,mq=on,vectors=6\n"
    );
    let port = format!("type = \"vhost-user\"\npath = \"/run/vm1.sock\"\nclient = true\n{MAC}");
    let told = told(&port, Monitor::Qemu);
    assert!(told.contains("socket,id=chr-vm1,path=/run/vm1.sock,server=on\n"), "{told}");
    assert!(told.contains("vhost-user,id=vm1,chardev=chr-vm1\n"), "{told}");
}

#[test]
fn a_monitor_gets_a_macvtap_on_a_tap_port() {
    let port = format!("ifname = \"tap0\"\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Qemu),
        "-netdev tap,id=vm1,fd=3\n-device virtio-net-pci,netdev=vm1,mac=02:00:00:00:00:07\n\
         3<>/dev/tap$(cat /sys/class/net/vm1-m/ifindex)\n"
    );
    let notes = notes(&port, Monitor::Qemu);
    let command =
        "tapwayctl device add vm1-m --type macvtap --parent tap0 --mode passthru --mac 02:00:00:00:00:07";
    assert!(notes.contains(command), "{notes}");
    assert!(notes.contains("ip link set vm1-m allmulticast on"), "{notes}");
    assert_eq!(
        told(&port, Monitor::CloudHypervisor),
        "--net fd=3,mac=02:00:00:00:00:07\n3<>/dev/tap$(cat /sys/class/net/vm1-m/ifindex)\n"
    );
    assert_eq!(
        told(&port, Monitor::Libvirt),
        "<interface type='direct' trustGuestRxFilters='yes'>\n  <mac address='02:00:00:00:00:07'/>\n  <source dev='tap0' mode='passthrough'/>\n  \
         <model type='virtio'/>\n</interface>\n"
    );
    assert_eq!(
        refused(&port, Monitor::Firecracker),
        "Firecracker cannot use port vm1, which is of type tap: it opens the descriptor end of a TAP, and nothing else; \
         give the VM a port of type netdev"
    );
    for monitor in [Monitor::Qemu, Monitor::Libvirt, Monitor::CloudHypervisor] {
        let why = refused("netns = \"blue\"", monitor);
        assert!(why.contains("tap in namespace blue") && why.contains(&monitor.to_string()), "{why}");
    }
    let given = "mac = \"02:00:00:00:00:08\"";
    assert!(
        told(given, Monitor::Qemu).contains("mac=02:00:00:00:00:08"),
        "the address that the interface was given"
    );
}

#[test]
fn libvirt_takes_a_tap_that_is_there_and_a_vhost_user_socket() {
    let port = format!("type = \"netdev\"\nqueues = 2\nmtu = 9000\n{MAC}");
    assert_eq!(
        told(&port, Monitor::Libvirt),
        "<interface type='ethernet'>\n  <mac address='02:00:00:00:00:07'/>\n  <target dev='vm1' managed='no'/>\n  \
         <model type='virtio'/>\n  <driver queues='2'/>\n  <mtu size='9000'/>\n</interface>\n"
    );
    let notes = notes(&port, Monitor::Libvirt);
    assert!(notes.contains("tapwayctl device add vm1 --type tap --queues 2 --owner UID"), "{notes}");
    let port = "type = \"vhost-user\"\npath = \"/run/a&b's.sock\"";
    assert_eq!(
        told(port, Monitor::Libvirt),
        "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n\
         <interface type='vhostuser'>\n  <source type='unix' path='/run/a&amp;b&apos;s.sock' mode='client'>\n    \
         <reconnect enabled='yes' timeout='1'/>\n  </source>\n  <model type='virtio'/>\n</interface>\n"
    );
    let waits = told("type = \"vhost-user\"\npath = \"/run/a\"\nclient = true", Monitor::Libvirt);
    assert!(waits.contains("<source type='unix' path='/run/a' mode='server'/>"), "{waits}");
}

#[test]
fn cloud_hypervisor_counts_the_queues_of_both_directions() {
    let port = format!("type = \"netdev\"\nifname = \"tap7\"\nqueues = 2\nmtu = 9000\n{MAC}");
    assert_eq!(
        told(&port, Monitor::CloudHypervisor),
        "--net tap=tap7,mac=02:00:00:00:00:07,num_queues=4,mtu=9000\n"
    );
    assert!(
        notes(&port, Monitor::CloudHypervisor).contains("tapwayctl device add tap7 --type tap --queues 2")
    );
    let port = format!("type = \"vhost-user\"\npath = \"/run/vm1.sock\"\nqueues = 2\n{MAC}");
    assert_eq!(
        told(&port, Monitor::CloudHypervisor),
        "--memory size=2G,shared=on\n--net vhost_user=true,socket=/run/vm1.sock,mac=02:00:00:00:00:07,num_queues=4\n"
    );
    let waits = told("type = \"vhost-user\"\npath = \"/run/a\"\nclient = true", Monitor::CloudHypervisor);
    assert!(waits.contains("--net vhost_user=true,socket=/run/a,vhost_mode=server\n"), "{waits}");
    let comma = refused("type = \"vhost-user\"\npath = \"/run/a,b\"", Monitor::CloudHypervisor);
    assert!(comma.contains("comma"), "{comma}");
}

#[test]
fn firecracker_opens_the_tap_of_a_netdev_port() {
    let port = format!("type = \"netdev\"\nifname = \"tap7\"\nmtu = 9000\n{MAC}");
    let attachment = attach(&end(&port), Monitor::Firecracker).unwrap();
    let config = json!({ "network-interfaces": [
        { "iface_id": "vm1", "host_dev_name": "tap7", "guest_mac": "02:00:00:00:00:07" }] });
    assert_eq!(serde_json::from_str::<Value>(&attachment.text()).unwrap(), config);
    assert_eq!(attachment.document()["config"], config);
    let notes = attachment.notes.join("\n");
    assert!(
        notes.contains("with one queue") && notes.contains("MTU of the guest's interface to 9000"),
        "{notes}"
    );
}

#[test]
fn what_a_monitor_cannot_use_is_one_sentence_that_says_what_can_be_done() {
    let stream = "type = \"stream\"\npath = \"/run/a\"";
    let dgram = "type = \"dgram\"\npath = \"/run/a\"";
    let vhost_user = "type = \"vhost-user\"\npath = \"/run/a\"";
    for (port, monitor) in [
        (stream, Monitor::Libvirt),
        (dgram, Monitor::Libvirt),
        (stream, Monitor::CloudHypervisor),
        (dgram, Monitor::CloudHypervisor),
        (stream, Monitor::Firecracker),
        (dgram, Monitor::Firecracker),
        (vhost_user, Monitor::Firecracker),
    ] {
        let why = refused(port, monitor);
        assert!(why.starts_with(&format!("{monitor} cannot use port vm1, which is of type ")), "{why}");
        assert!(why.contains("give the VM a port") && !why.contains('\n'), "{why}");
    }
    let tunnel = "type = \"vxlan\"\nvni = 7\nlocal = \"198.51.100.1\"";
    for monitor in [Monitor::Qemu, Monitor::Libvirt, Monitor::CloudHypervisor, Monitor::Firecracker] {
        assert_eq!(refused(tunnel, monitor), "port vm1 is a vxlan tunnel: no VM is attached to it");
    }
}

#[test]
fn names_and_paths_that_mean_something_to_a_monitor_or_a_shell_are_written_so_that_they_do_not() {
    let spec = |name: &str, path: &str| -> SwitchEnd {
        let text = format!("name = {name:?}\nbridge = \"br0\"\ntype = \"stream\"\npath = {path:?}");
        let spec = toml::from_str::<PortSpec>(&text).unwrap();
        SwitchEnd::new(&spec, 1, 1500, "1G".parse().unwrap())
    };
    let told = attach(&spec("7@a,b", "/run/a,b c'd"), Monitor::Qemu).unwrap();
    assert_eq!(
        told.text(),
        "-netdev 'stream,id=p7_a_b,server=off,addr.type=unix,addr.path=/run/a,,b c'\\''d'\n\
         -device virtio-net-pci,netdev=p7_a_b\n"
    );
    assert_eq!(
        told.document()["arguments"],
        json!([
            "-netdev",
            "stream,id=p7_a_b,server=off,addr.type=unix,addr.path=/run/a,,b c'd",
            "-device",
            "virtio-net-pci,netdev=p7_a_b"
        ])
    );
}

#[test]
fn memory_is_written_as_monitors_write_it() {
    for good in ["512M", "2G", "10G"] {
        assert_eq!(good.parse::<Memory>(), Ok(Memory(good.into())));
    }
    for bad in ["", "G", "2", "02G", "2g", "2T", "1.5G", "-1G", "2G,share=off"] {
        assert!(bad.parse::<Memory>().is_err(), "{bad}");
    }
}
