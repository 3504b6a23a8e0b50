//! How one VLAN, and the list that a trunk carries, are written in files and JSON.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::words::WordError;
use crate::wire::{Vid, VlanList};

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
                    list.extend(&part);
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
