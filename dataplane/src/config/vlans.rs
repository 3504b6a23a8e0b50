//! The words for VLANs: one VLAN, and the list a trunk carries.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::words::WordError;
use crate::wire::Vid;

const NO_VLAN: &str = "is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)";

fn vid_of(number: i128) -> Result<Vid, WordError> {
    let vid = u16::try_from(number).ok().and_then(Vid::new);
    vid.ok_or_else(|| WordError::new(&number.to_string(), NO_VLAN))
}

/// Reads the value of a key that takes one VLAN; unlike the type's own form it says what is allowed.
pub(super) fn vid<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vid>, D::Error> {
    let number = Option::<i64>::deserialize(d)?;
    number.map(|n| vid_of(n.into())).transpose().map_err(de::Error::custom)
}

/// A set of VLANs: `10,20,100-199`, or `all` for 1 to 4094.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanList(Box<[u64; 64]>);

impl Default for VlanList {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl VlanList {
    /// Every VLAN, 1 to 4094.
    pub fn all() -> Self {
        let mut list = Self::default();
        list.insert_range(Vid::MIN, Vid::MAX);
        list
    }

    /// Whether it is every VLAN.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether `vid` is in it; 0 and 4095 never are.
    #[inline]
    pub fn contains(&self, vid: u16) -> bool {
        self.0[usize::from(vid >> 6) & 63] & 1 << (vid & 63) != 0 && vid < 4096
    }

    /// Whether no VLAN is in it, which no text says.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Adds one VLAN.
    pub fn insert(&mut self, vid: Vid) {
        self.insert_range(vid.get(), vid.get());
    }

    fn insert_range(&mut self, first: u16, last: u16) {
        for vid in first..=last {
            self.0[usize::from(vid >> 6)] |= 1 << (vid & 63);
        }
    }

    /// The VLANs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (Vid::MIN..=Vid::MAX).filter(|&v| self.contains(v)).filter_map(Vid::new)
    }
}

impl From<Vid> for VlanList {
    fn from(vid: Vid) -> Self {
        let mut list = Self::default();
        list.insert(vid);
        list
    }
}

impl fmt::Display for VlanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.pad("all");
        }
        let mut out = String::new();
        let mut vid = Vid::MIN;
        while vid <= Vid::MAX {
            if self.contains(vid) {
                let first = vid;
                while self.contains(vid + 1) {
                    vid += 1;
                }
                let comma = if out.is_empty() { "" } else { "," };
                out +=
                    &if vid == first { format!("{comma}{first}") } else { format!("{comma}{first}-{vid}") };
            }
            vid += 1;
        }
        f.pad(&out)
    }
}

impl fmt::Debug for VlanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VlanList {
    type Err = WordError;

    fn from_str(s: &str) -> Result<Self, WordError> {
        let error = || WordError::new(s, "is no VLAN list: write 10,20,100-199 (1 to 4094) or all");
        if s == "all" {
            return Ok(Self::all());
        }
        let mut list = Self::default();
        for part in s.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (Vid, Vid) =
                (first.parse().map_err(|_| error())?, last.parse().map_err(|_| error())?);
            if first > last {
                return Err(error());
            }
            list.insert_range(first.get(), last.get());
        }
        Ok(list)
    }
}

impl Serialize for VlanList {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One element of a list: `10`, `"10"` or `"10-19"`.
struct Part(VlanList);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a VLAN such as 10 or a range such as \"100-199\"")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Part, E> {
                vid_of(v.into()).map(|vid| Part(vid.into())).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Part, E> {
                vid_of(v.into()).map(|vid| Part(vid.into())).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Part, E> {
                v.parse().map(Part).map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

/// Reads `"10,20,100-199"`, `"all"`, `10`, or an array of such; it is always written as text.
impl<'de> Deserialize<'de> for VlanList {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> de::Visitor<'de> for V {
            type Value = VlanList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("VLANs such as \"10,20,100-199\", \"all\", 10 or [10, \"100-199\"]")
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<VlanList, E> {
                vid_of(v.into()).map(VlanList::from).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<VlanList, E> {
                vid_of(v.into()).map(VlanList::from).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<VlanList, E> {
                v.parse().map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<VlanList, A::Error> {
                let mut list = VlanList::default();
                while let Some(Part(part)) = seq.next_element()? {
                    list.0.iter_mut().zip(part.0.iter()).for_each(|(all, more)| *all |= more);
                }
                if list.is_empty() {
                    return Err(de::Error::custom("an empty array is no VLAN list"));
                }
                Ok(list)
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_list_prints_as_it_parses() {
        for s in ["10", "10,20,100-199", "1-4093", "all", "4094"] {
            assert_eq!(s.parse::<VlanList>().unwrap().to_string(), s);
        }
        assert_eq!("20,10,11,12".parse::<VlanList>().unwrap().to_string(), "10-12,20");
        for bad in ["", "0", "4095", "10-", "20-10", "10,,20", "x", "10 20"] {
            assert!(bad.parse::<VlanList>().is_err(), "{bad}");
        }
        assert!(!VlanList::all().contains(0) && !VlanList::all().contains(4095));
    }

    #[test]
    fn a_trunk_may_be_text_a_number_or_an_array_and_is_written_as_text() {
        #[derive(Deserialize, Serialize)]
        struct T {
            trunk: VlanList,
        }
        for (toml, text) in [
            ("trunk = \"10,20,100-199\"", "10,20,100-199"),
            ("trunk = \"all\"", "all"),
            ("trunk = 10", "10"),
            ("trunk = [20, \"10\", \"100-199\"]", "10,20,100-199"),
        ] {
            let t: T = toml::from_str(toml).unwrap();
            assert_eq!(serde_json::to_value(&t).unwrap(), serde_json::json!({ "trunk": text }), "{toml}");
        }
        for bad in ["[]", "0", "[1, 4095]", "[[1]]", "1.5", "true", "-1", "\"\""] {
            assert!(toml::from_str::<T>(&format!("trunk = {bad}")).is_err(), "{bad}");
        }
    }
}
