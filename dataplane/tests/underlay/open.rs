//! Which addresses and ports sockets get, and what is said where they do not.

use std::net::{SocketAddr, UdpSocket};

use super::topo::*;
use tapway_dataplane::port::underlay::{RxOptions, TxSet, TxSetOptions, UdpRx, UnderlayError};

#[test]
fn source_ports_are_spread_over_the_range_and_the_same_for_every_worker() {
    let Some((a, _b)) = hosts() else { return };
    let sets = a.run(|| TxSet::open(&tx_options(A4), 3)).unwrap();
    let expected: Vec<u16> = SOURCE_PORTS.step_by(10).collect();
    for set in &sets {
        assert_eq!(set.ports(), expected);
        assert!(set.segments());
    }
}

#[test]
fn ports_that_are_taken_or_to_be_avoided_are_passed_over() {
    let Some((a, _b)) = hosts() else { return };
    let taken = a.run(|| UdpSocket::bind((A4, 50_000))).unwrap();
    let options = TxSetOptions { avoid: vec![50_001, 50_010], ..tx_options(A4) };
    let sets = a.run(|| TxSet::open(&options, 1)).unwrap();
    assert_eq!(sets[0].ports()[..3], [50_002, 50_011, 50_020]);
    drop(sets);

    let none = TxSetOptions { ports: 50_000..=50_001, ..options.clone() };
    let error = a.run(|| TxSet::open(&none, 1)).unwrap_err();
    assert_eq!(error.to_string(), "none of the UDP ports 50000-50001 of 198.51.100.1 is free to send from");
    drop(taken);
    let few = TxSetOptions { ports: 50_009..=50_011, ..options };
    assert_eq!(a.run(|| TxSet::open(&few, 2)).unwrap()[1].ports(), [50_009, 50_011]);
}

#[test]
fn an_address_that_is_not_here_is_an_error_that_names_it() {
    let Some((a, _b)) = hosts() else { return };
    let error = a.run(|| TxSet::open(&tx_options("203.0.113.9"), 1)).unwrap_err();
    assert!(matches!(error, UnderlayError::NotHere(_)), "{error}");
    assert!(error.to_string().contains("203.0.113.9"), "{error}");
}

#[test]
fn a_port_that_another_program_or_the_kernel_receives_on_is_refused() {
    let Some((a, _b)) = hosts() else { return };
    let options = |local| RxOptions { local, zero_checksum: false, exclusive: true };
    let open = |options: &RxOptions| a.run(|| UdpRx::open(options, 2));
    // Another daemon would share the port, and take a part of the flows.
    let first = open(&options(vtep(A4))).unwrap();
    assert!(matches!(open(&options(vtep(A4))), Err(UnderlayError::InUse(_))));
    // Sockets that replace others do share it.
    let second = open(&RxOptions { exclusive: false, ..options(vtep(A4)) }).unwrap();
    drop((first, second));

    a.ip("link add vx0 type vxlan id 1 dstport 4790 dev eth0");
    a.ip("link set dev vx0 up");
    let local = SocketAddr::new(ip(A4), 4790);
    for exclusive in [true, false] {
        let error = open(&RxOptions { exclusive, ..options(local) }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "UDP port 4790 of 198.51.100.1 is in use: by another program, or by a tunnel device of the kernel"
        );
    }
}
