//! stub
use std::net::IpAddr;
use crate::{index::{RemoteIdx,VtepIdx}, tick::Tick};
#[derive(Debug, Default)] pub struct Remotes;
impl Remotes { pub fn path_mtu(&self, _: RemoteIdx)->u32{0} pub fn address(&self, _:RemoteIdx)->Option<IpAddr>{None} }
#[derive(Debug, Default)] pub struct RemoteCache;
impl RemoteCache { pub fn index(&mut self, _: &Remotes, _: VtepIdx, _: IpAddr, _: Tick)->Option<RemoteIdx>{None} }
