//! Deleting many devices at once.
//!
//! For each request that deletes, the kernel waits until nobody reads what is deleted (`synchronize_net`, `rcu_barrier`): tens of
//! milliseconds, of two hundred devices seconds. A request that deletes a whole group waits once. So the devices are first put into
//! the group [`LEAVING_GROUP`], which costs next to nothing, and then that is deleted. A device that is left in it by a program that
//! was killed in between is [`Mark::Unfinished`], as one that was never finished.

use std::{
    collections::{HashMap, hash_map::Entry},
    os::fd::{AsFd as _, OwnedFd},
};

use netlink_packet_route::link::LinkAttribute;

use super::{DeviceError, LEAVING_GROUP, Mark, observe::observe_by, place::Place, steps::refused};
use crate::{
    netlink::{NetlinkError, Socket},
    netns::Netns,
    sys::netns,
};

/// A namespace that devices leave.
struct Leaving {
    place: Place,
    socket: Socket,
    /// Their numbers.
    numbers: Vec<u32>,
}

/// Takes devices of ours away, with everything that stands on them, each by its name and its namespace; one that is not there is no
/// error. Those that stand on others are to come before those.
///
/// Where one cannot be deleted, the answer is how many before it are gone, and why it is not; those after it are left.
pub fn delete_all(devices: &[(&str, Option<&Netns>)]) -> Result<(), (usize, DeviceError)> {
    let mut places: HashMap<Option<&Netns>, Leaving> = HashMap::new();
    let mut found = Vec::new();
    let mut result = Ok(());
    for (at, (name, netns)) in devices.iter().enumerate() {
        match enter(&mut places, name, *netns) {
            Ok(None) => {}
            Ok(Some(index)) => found.push((at, *netns, index)),
            Err(error) => {
                result = Err((at, error));
                break;
            }
        }
    }
    let at_once =
        |Leaving { socket, numbers, .. }: &mut Leaving| delete_numbers(socket, numbers.iter().copied());
    if places.values_mut().map(at_once).all(|deleted| deleted.is_ok()) {
        return result;
    }
    // One of them is in the way of all: each by itself says which.
    for (at, netns, index) in found {
        let (name, _) = devices[at];
        let Some(leaving) = places.get_mut(&netns) else { continue };
        leaving.socket.delete_index(index, name).map_err(|error| (at, refused(name, error)))?;
    }
    result
}

/// The number of a device of ours, which is to leave; `None` where it is not there.
fn enter<'a>(
    places: &mut HashMap<Option<&'a Netns>, Leaving>,
    name: &str,
    netns: Option<&'a Netns>,
) -> Result<Option<u32>, DeviceError> {
    let leaving = match places.entry(netns) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(free) => {
            let place = Place::open(name, netns)?;
            let socket = place.socket(name)?;
            free.insert(Leaving { place, socket, numbers: Vec::new() })
        }
    };
    match observe_by(name, &leaving.place, &mut leaving.socket, None)? {
        None => Ok(None),
        Some(found) if matches!(found.mark, Mark::Ours | Mark::Unfinished) => {
            leaving.numbers.push(found.index);
            Ok(Some(found.index))
        }
        Some(_) => Err(DeviceError::Foreign { name: name.to_owned() }),
    }
}

/// Takes interfaces away that their owner is done with, each by its namespace and its number. What cannot be deleted this way
/// is left to whoever ends its descriptors.
pub fn delete_interfaces(interfaces: &[(OwnedFd, u32)]) {
    let mut namespaces: HashMap<netns::NetnsId, (&OwnedFd, Vec<u32>)> = HashMap::new();
    for (netns, index) in interfaces {
        if let Ok(id) = netns::id(netns) {
            namespaces.entry(id).or_insert_with(|| (netns, Vec::new())).1.push(*index);
        }
    }
    for (netns, numbers) in namespaces.into_values() {
        if let Ok(mut socket) = Socket::open_in(netns.as_fd()) {
            let _ = delete_numbers(&mut socket, numbers.into_iter()); // see above
        }
    }
}

/// Puts links into the group of those that leave, and deletes that.
fn delete_numbers(socket: &mut Socket, numbers: impl Iterator<Item = u32>) -> Result<(), NetlinkError> {
    let mut numbers = numbers.peekable();
    if numbers.peek().is_none() {
        return Ok(());
    }
    for index in numbers {
        let group = vec![LinkAttribute::Group(LEAVING_GROUP)];
        let object = format!("interface number {index}");
        match socket.set_attributes("set the group of", index, &object, None, group) {
            // It has gone by itself, with what it was on.
            Err(error) if error.errno != rustix::io::Errno::NODEV => return Err(error),
            _ => {}
        }
    }
    socket.delete_group(LEAVING_GROUP)
}
