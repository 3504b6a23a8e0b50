//! Ports whose queues come and go: a VM that is not there yet, goes and comes back, and what the other ports notice of it.

mod sim;

use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use sim::{ALL, frame};
use tapway_dataplane::{
    api::{Control as _, PortView, Reply, Request},
    clock::Clock,
    config::PortOptions,
    engine::{Backend, BackendError, Desk, Engine, MemoryBackend, Opened, Opener, Options},
    frame::{Caps, Offload},
    port::{MemoryPeer, Queue, memory, tap::Features},
    wire::MacAddr,
};

/// What a VM has done that its port does not know yet.
#[derive(Debug, Default)]
struct Doorstep {
    /// Queues of a VM that wants to be let in, and what it takes.
    arriving: Option<(Vec<Queue>, Caps)>,
    leaving: bool,
    /// What is counted: queues that came back to the port.
    returned: usize,
}

/// A port that waits for a VM: one octet on the bell says that there is something on the doorstep.
#[derive(Debug)]
struct Waiting {
    bell: UnixStream,
    doorstep: Arc<Mutex<Doorstep>>,
    caps: Option<Caps>,
}

impl Backend for Waiting {
    fn caps(&self) -> Caps {
        self.caps.unwrap_or(Caps::NONE)
    }

    fn ifname(&self) -> String {
        String::new()
    }

    fn mac(&self) -> Option<MacAddr> {
        None
    }

    fn health(&self) -> Result<(), String> {
        self.caps.map(drop).ok_or_else(|| "no VM is connected".to_owned())
    }

    fn change(&mut self, _: &PortOptions, _: &PortOptions) -> Result<(), BackendError> {
        Ok(())
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.bell.as_fd()]
    }

    fn tend(&mut self, desk: &mut dyn Desk) {
        let _ = self.bell.read(&mut [0; 16]);
        let mut doorstep = self.doorstep.lock().unwrap();
        if std::mem::take(&mut doorstep.leaving) {
            doorstep.returned += desk.take_back().len();
            self.caps = None;
        }
        if let Some((queues, caps)) = doorstep.arriving.take() {
            desk.hand_out(queues).unwrap();
            self.caps = Some(caps);
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A switch with port `vm`, which waits for a VM, and ports `a` and `b`.
struct Rig {
    engine: Engine,
    bell: UnixStream,
    doorstep: Arc<Mutex<Doorstep>>,
    a: MemoryPeer,
    b: MemoryPeer,
    clock: Clock,
}

impl Rig {
    fn new(workers: usize) -> Self {
        let (bell, far_bell) = UnixStream::pair().unwrap();
        far_bell.set_nonblocking(true).unwrap();
        let doorstep = Arc::<Mutex<Doorstep>>::default();
        let (ends, clock) = (Arc::<Mutex<Vec<MemoryPeer>>>::default(), Clock::stopped());
        let (open_ends, open_doorstep, mut far_bell) =
            (Arc::clone(&ends), Arc::clone(&doorstep), Some(far_bell));
        let opener = Opener::with(move |spec, _| {
            if spec.name.as_str() == "vm" {
                let doorstep = Arc::clone(&open_doorstep);
                let backend = Waiting { bell: far_bell.take().unwrap(), doorstep, caps: None };
                return Ok(Opened { backend: Box::new(backend), queues: Vec::new() });
            }
            let (opened, end) = MemoryBackend::open(Caps::ALL);
            open_ends.lock().unwrap().push(end);
            Ok(opened)
        });
        let options = Options {
            workers,
            threads: false,
            clock: clock.clone(),
            bell: None,
            opener,
            features: Features::default(),
        };
        let mut engine = Engine::start(options).unwrap();
        let mut ask = |method: &str, parameters: Value| {
            engine.call(Request::from_varlink(method, parameters).unwrap()).unwrap();
        };
        ask("BridgeAdd", json!({ "name": "br0" }));
        for name in ["vm", "a", "b"] {
            ask("PortAdd", json!({ "name": name, "bridge": "br0" }));
        }
        let ends = ends.lock().unwrap().clone();
        Self { engine, bell, doorstep, a: ends[0].clone(), b: ends[1].clone(), clock }
    }

    /// A VM comes, with so many queues; their far ends.
    fn arrive(&mut self, queues: usize, caps: Caps) -> Vec<MemoryPeer> {
        let (queues, ends) =
            (0..queues).map(|_| memory::pair(caps)).map(|(q, end)| (Queue::Memory(q), end)).unzip();
        self.doorstep.lock().unwrap().arriving = Some((queues, caps));
        self.ring();
        ends
    }

    fn leave(&mut self) {
        self.doorstep.lock().unwrap().leaving = true;
        self.ring();
    }

    fn ring(&mut self) {
        self.bell.write_all(&[1]).unwrap();
        self.engine.housekeep();
    }

    fn view(&mut self) -> PortView {
        match self.engine.call(Request::PortShow { name: "vm".parse().unwrap() }).unwrap() {
            Reply::Port { port } => *port,
            other => panic!("PortShow answered {other:?}"),
        }
    }

    /// How the port is, and why.
    fn oper(&mut self) -> (String, Option<String>) {
        let view = self.view();
        (view.oper, view.reason)
    }

    /// Entries of the FDB behind the port.
    fn known(&mut self) -> u64 {
        self.view().macs
    }
}

fn up() -> (String, Option<String>) {
    ("up".into(), None)
}

fn waits() -> (String, Option<String>) {
    ("down".into(), Some("no VM is connected".into()))
}

#[test]
fn a_port_waits_for_its_vm_carries_its_frames_and_waits_again() {
    for workers in [1, 3] {
        let mut rig = Rig::new(workers);
        assert_eq!(rig.oper(), waits());
        assert_eq!(rig.view().queues, 0);
        let vm = rig.arrive(2, Caps::NONE);
        assert_eq!((rig.oper(), rig.view().queues), (up(), 2), "with {workers} workers");

        assert!(vm[1].send(&frame(ALL, 1), Offload::NONE));
        rig.engine.run_inline();
        assert_eq!((rig.a.drain().len(), rig.b.drain().len()), (1, 1));
        rig.a.send(&frame(1, 2), Offload::NONE);
        rig.engine.run_inline();
        assert_eq!((vm.iter().map(|end| end.drain().len()).sum::<usize>(), rig.b.drain().len()), (1, 0));
        assert_eq!(rig.known(), 1);

        rig.leave();
        assert_eq!((rig.oper(), rig.known(), rig.view().queues), (waits(), 0, 0), "its station is forgotten");
        assert_eq!(rig.doorstep.lock().unwrap().returned, 2, "each queue once, and no handle to send by");
        rig.a.send(&frame(1, 2), Offload::NONE);
        rig.engine.run_inline();
        assert_eq!((vm[0].drain().len(), rig.b.drain().len()), (0, 1), "unknown, and flooded past the port");

        let again = rig.arrive(1, Caps::ALL);
        assert_eq!((rig.oper(), rig.view().queues), (up(), 1));
        assert!(rig.view().offload.contains(&"tso4".to_owned()), "what this one takes");
        rig.a.send(&frame(ALL, 2), Offload::NONE);
        rig.engine.run_inline();
        assert_eq!((again[0].drain().len(), vm[0].drain().len()), (1, 0));
    }
}

#[test]
fn a_queue_that_is_lost_makes_the_port_look_and_reports_of_it_that_come_late_do_no_harm() {
    let mut rig = Rig::new(2);
    let vm = rig.arrive(2, Caps::ALL);
    // Both workers find their queue gone, and tell of it when the next VM is there already.
    vm.iter().for_each(MemoryPeer::hang_up);
    rig.engine.run_inline();
    rig.doorstep.lock().unwrap().leaving = true;
    let again = rig.arrive(2, Caps::ALL);
    assert_eq!(rig.oper(), up());
    rig.engine.housekeep();
    assert_eq!(rig.oper(), up(), "no report is of these queues");
    assert!(again[0].send(&frame(ALL, 1), Offload::NONE));
    rig.engine.run_inline();
    assert_eq!(rig.a.drain().len(), 1);

    again.iter().for_each(MemoryPeer::hang_up);
    rig.engine.run_inline();
    rig.doorstep.lock().unwrap().leaving = true;
    rig.engine.housekeep();
    assert_eq!(rig.oper(), waits(), "no bell rang: a worker said it");
}

#[test]
fn a_vm_that_takes_another_ones_place_has_not_its_stations() {
    let mut rig = Rig::new(1);
    let first = rig.arrive(1, Caps::ALL);
    assert!(first[0].send(&frame(ALL, 1), Offload::NONE));
    rig.engine.run_inline();
    assert_eq!(rig.known(), 1);
    let second = rig.arrive(1, Caps::ALL);
    assert_eq!((rig.oper(), rig.known(), rig.view().queues), (up(), 0, 1));
    assert!(first[0].send(&frame(ALL, 1), Offload::NONE), "into a wire that nobody reads");
    assert!(second[0].send(&frame(ALL, 2), Offload::NONE));
    rig.engine.run_inline();
    assert_eq!(rig.known(), 1);
}

#[test]
fn what_comes_each_second_is_seen_without_a_bell_and_an_ended_port_leaves_nothing() {
    let mut rig = Rig::new(1);
    let (queue, _end) = memory::pair(Caps::ALL);
    rig.doorstep.lock().unwrap().arriving = Some((vec![Queue::Memory(queue)], Caps::ALL));
    rig.engine.housekeep();
    assert_eq!(rig.oper(), waits());
    rig.clock.advance(std::time::Duration::from_secs(1));
    rig.engine.housekeep();
    assert_eq!(rig.oper(), up());
    rig.engine.call(Request::PortDel { name: "vm".parse().unwrap() }).unwrap();
    assert!(rig.bell.write_all(&[1]).is_err(), "its descriptors are closed");
    rig.engine.housekeep();
}

#[test]
fn other_ports_lose_no_frame_while_a_vm_comes_and_goes() {
    let mut rig = Rig::new(2);
    let mut sent = 0;
    for round in 0..20u32 {
        if round % 2 == 0 {
            rig.arrive(1 + round as usize % 3, Caps::ALL);
        } else {
            rig.leave();
        }
        for _ in 0..50 {
            assert!(rig.a.send(&frame(ALL, 2), Offload::NONE));
            sent += 1;
        }
        rig.engine.run_inline();
    }
    assert_eq!(rig.b.drain().len(), sent);
}
