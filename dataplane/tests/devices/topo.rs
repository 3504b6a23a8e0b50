//! The small words the tests are written in.

use std::{
    env, fs, panic,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tapway_dataplane::{
    netlink::{
        OperState, Socket,
        device::{
            Device, DeviceError, Kind, Mark, Observed, Whose, create, delete, differences, list, observe,
        },
    },
    netns::Netns,
    wire::MacAddr,
};

#[path = "../container/mod.rs"]
mod container;

pub(crate) use container::{Container, in_netns, skipped};

impl Container {
    /// Runs `ip ARGS` inside.
    #[track_caller]
    pub(crate) fn ip(&self, args: &str) -> String {
        self.run(|| ip(args))
    }
}

/// A name in /run/netns that nobody has; what is there by then goes with it.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("tapway-dev-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed)))
    }

    pub(crate) fn netns(&self) -> Netns {
        Netns::Name(self.0.clone())
    }

    pub(crate) fn exists(&self) -> bool {
        fs::exists(format!("/run/netns/{}", self.0)).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = tapway_dataplane::netlink::device::delete_netns(&self.0);
    }
}

/// Runs `ip ARGS` in the calling thread's namespace. What it printed is the answer.
#[track_caller]
pub(crate) fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim());
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The names of all interfaces of the calling thread's namespace.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> =
        Socket::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

/// Makes a device that is to work; `false` where this kernel does not have the kind and need not have it.
#[track_caller]
pub(crate) fn made(device: &Device) -> bool {
    match create(device) {
        Ok(_) => true,
        Err(error @ DeviceError::NoSuchKind { .. }) if env::var_os("TAPWAY_TEST_GUEST").is_none() => {
            println!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Makes a device that every kernel has.
#[track_caller]
pub(crate) fn make(device: &Device) {
    create(device).unwrap_or_else(|error| panic!("{error}"));
}

/// The device as it is, which is to be there. Without its operational state, which follows by itself and later.
#[track_caller]
pub(crate) fn look(device: &Device) -> Observed {
    let observed = observe(&device.name, device.netns.as_ref(), Some(device))
        .unwrap_or_else(|error| panic!("{error}"))
        .unwrap_or_else(|| panic!("{} is not there", device.name));
    Observed { operstate: OperState::Unknown, ..observed }
}

/// Every device of a namespace, without operational states.
pub(crate) fn look_at_all(netns: Option<&Netns>, wanted: &[&Device]) -> Vec<Observed> {
    let mut all = list(netns, wanted).unwrap();
    all.iter_mut().for_each(|one| one.operstate = OperState::Unknown);
    all
}

/// Makes a device, looks whether it is what was asked for, and that making it again is refused and deleting it leaves nothing.
/// In between, `ip` and the kernel may say what they think of it.
#[track_caller]
pub(crate) fn lives(device: &Device, meanwhile: impl FnOnce()) {
    let before = names();
    if !made(device) {
        return;
    }
    let observed = look(device);
    assert_eq!(differences(&observed, device), [], "{observed:#?}");
    assert_eq!(observed.mark, Mark::Ours);
    assert!(matches!(create(device), Err(DeviceError::Exists { .. })));
    meanwhile();
    delete(&device.name, device.netns.as_ref(), Whose::Ours).unwrap();
    assert_eq!(observe(&device.name, device.netns.as_ref(), None).unwrap(), None);
    assert!(matches!(
        delete(&device.name, device.netns.as_ref(), Whose::Ours),
        Err(DeviceError::Missing { .. })
    ));
    assert_eq!(names(), before);
}

/// The parent p0 that other devices stand on: one end of a foreign veth.
pub(crate) fn parent() {
    ip("link add p0 type veth peer name p1");
    ip("link set p0 up");
    ip("link set p1 up");
}

/// A device that is up.
pub(crate) fn up(name: &str, kind: Kind) -> Device {
    Device { up: true, ..Device::new(name, kind) }
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr::from_octets([2, 0, 0, 0, 0, last])
}

/// Waits until `done` says so, 10 seconds at most.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "10 s later: not {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
