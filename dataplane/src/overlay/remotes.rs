//! The far ends of all tunnels.
use std::{collections::HashMap, net::IpAddr, sync::RwLock};

use crate::{
    index::{RemoteIdx, VtepIdx},
    tick::Tick,
};

#[derive(Debug, Default)]
struct All {
    of: HashMap<(VtepIdx, IpAddr), RemoteIdx>,
    list: Vec<(IpAddr, u32)>,
}
/// t
#[derive(Debug, Default)]
pub struct Remotes(RwLock<All>);
#[allow(missing_docs)]
impl Remotes {
    pub fn path_mtu(&self, r: RemoteIdx) -> u32 {
        self.0.read().unwrap().list[r.at()].1
    }
    pub fn address(&self, r: RemoteIdx) -> Option<IpAddr> {
        self.0.read().unwrap().list.get(r.at()).map(|x| x.0)
    }
    pub fn set_path_mtu(&self, r: RemoteIdx, mtu: u32) {
        self.0.write().unwrap().list[r.at()].1 = mtu;
    }
    pub fn find_or_add(&self, v: VtepIdx, ip: IpAddr, _: Tick) -> Option<RemoteIdx> {
        let mut all = self.0.write().unwrap();
        if let Some(r) = all.of.get(&(v, ip)) {
            return Some(*r);
        }
        let r = RemoteIdx(all.list.len() as u16);
        all.list.push((ip, 0));
        all.of.insert((v, ip), r);
        Some(r)
    }
    pub fn pin(&self, v: VtepIdx, ip: IpAddr) -> Option<RemoteIdx> {
        self.find_or_add(v, ip, Tick::from_secs(1))
    }
    pub fn narrow(&self, v: VtepIdx, ip: IpAddr, mtu: u32) {
        let mut all = self.0.write().unwrap();
        if let Some(r) = all.of.get(&(v, ip)).copied() {
            all.list[r.at()].1 = mtu.min(all.list[r.at()].1);
        }
    }
    pub fn unpin(&self, _: RemoteIdx) {}
}
/// c
#[derive(Debug, Default)]
pub struct RemoteCache;
#[allow(missing_docs)]
impl RemoteCache {
    pub fn index(&mut self, r: &Remotes, v: VtepIdx, ip: IpAddr, now: Tick) -> Option<RemoteIdx> {
        r.find_or_add(v, ip, now)
    }
}
