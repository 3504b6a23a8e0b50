//! How objects are read from keys and values, whichever format these come in.
//!
//! Owns the form of the objects: flat, the required keys first in the struct, then the options; and the messages for an
//! unknown key and a value that does not fit, which name the key.
//! The keys are those of the structs: no list of them exists beside the fields.

use std::{fmt, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _, MapAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

use super::{
    check::limit,
    device::{DeviceOptions, DeviceSpec},
    spec::{BridgeSpec, FdbSpec, NeighSpec, PortSpec, UplinkOptions, UplinkSpec},
    tunnel, words,
};

/// The longest message a bad value can cause: values come from strangers and are shown to operators.
const MESSAGE_MAX: usize = 240;

/// The keys of a struct, as its `Deserialize` names them and in the order of its fields.
pub fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // The derived code hands its key list to the format; this format takes it and reads nothing.
    let _ = T::deserialize(KeyList(&mut keys));
    keys
}

struct KeyList<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KeyList<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("only the keys of a struct are read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = keys;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Steps of one character between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > 32 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (steps, best) = known.iter().map(|k| (distance(&word, k), *k)).min()?;
    // Two steps are much in a short word, unless its letters are only in another order.
    let letters = |word: &str| {
        let mut letters = word.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    let near = if best.len() >= 6 || letters(&word) == letters(best) { 2 } else { 1 };
    (steps <= near).then_some(best)
}

/// `unknown KIND "WORD"` and what would be right.
pub(super) fn unknown(kind: &str, word: &str, known: &[&str]) -> String {
    let word: String = word.chars().take(64).collect();
    match nearest(&word, known) {
        Some(near) => format!("unknown {kind} {word:?}; did you mean {near:?}?"),
        None => format!("unknown {kind} {word:?}; the {kind}s are {}", known.join(", ")),
    }
}

/// What a value that does not fit says to an operator: the key, the value, what is allowed.
fn bad_value(key: &str, error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let text = text.trim_end();
    // The TOML reader adds the key on a line of its own; it stands in front already.
    let text = text.rsplit_once("\nin `").map_or(text, |(message, _)| message);
    let text = match text.rsplit_once(", expected ") {
        Some((what, expected)) if text.starts_with("invalid ") => match (limit(key), expected) {
            (Some(range), _) => {
                format!("{what}, expected a number from {} to {}", range.start(), range.end())
            }
            (_, "a sequence") => format!("{what}, expected an array"),
            (_, "u16") => format!("{what}, expected a number from 0 to {}", u16::MAX),
            (_, "u32") => format!("{what}, expected a number from 0 to {}", u32::MAX),
            (_, "i64") => format!("{what}, expected a number"),
            _ => text.to_owned(),
        },
        _ => text.to_owned(),
    };
    let shown = text.chars().take(MESSAGE_MAX);
    let shown: String =
        shown.flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    format!("{key}: {shown}")
}

/// Reads a flat object: the required `head` keys, whose values are text, and the keys of `O`.
fn flat<'de, D, O, const N: usize>(
    deserializer: D,
    head: [&'static str; N],
) -> Result<([String; N], O), D::Error>
where
    D: Deserializer<'de>,
    O: Deserialize<'de>,
{
    struct Object<O, const N: usize>([&'static str; N], std::marker::PhantomData<O>);

    impl<'de, O: Deserialize<'de>, const N: usize> Visitor<'de> for Object<O, N> {
        type Value = ([String; N], O);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            let mut taken = [const { None }; N];
            let body =
                Body { map, head: &self.0, taken: &mut taken, options: keys_of::<O>(), key: String::new() };
            let options = O::deserialize(de::value::MapAccessDeserializer::new(body))?;
            let mut values = [const { String::new() }; N];
            for ((value, taken), key) in values.iter_mut().zip(taken).zip(self.0) {
                *value = taken.ok_or_else(|| A::Error::custom(missing(key)))?;
            }
            Ok((values, options))
        }
    }

    deserializer.deserialize_map(Object(head, std::marker::PhantomData))
}

/// The message for a required key that is not there.
pub(super) fn missing(key: &str) -> String {
    format!("{key} is missing")
}

/// The map without its head keys, which are put aside on the way.
struct Body<'a, A> {
    map: A,
    head: &'a [&'static str],
    taken: &'a mut [Option<String>],
    options: &'static [&'static str],
    key: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Body<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            let Some(at) = self.head.iter().position(|k| *k == key) else {
                if !self.options.contains(&key.as_str()) {
                    let known: Vec<&str> = self.head.iter().chain(self.options).copied().collect();
                    return Err(A::Error::custom(unknown("key", &key, &known)));
                }
                self.key = key;
                return seed.deserialize(StrDeserializer::new(&self.key)).map(Some);
            };
            let value = self.map.next_value().map_err(|e| A::Error::custom(bad_value(&key, &e)))?;
            if self.taken[at].replace(value).is_some() {
                return Err(A::Error::custom(format!("{key} is given twice")));
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed).map_err(|e| A::Error::custom(bad_value(&self.key, &e)))
    }
}

fn word<T: std::str::FromStr<Err: fmt::Display>, E: de::Error>(key: &str, text: &str) -> Result<T, E> {
    text.parse().map_err(|e| E::custom(bad_value(key, &e)))
}

impl<'de> Deserialize<'de> for BridgeSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([name], options) = flat(d, ["name"])?;
        Ok(Self { name: word("name", &name)?, options })
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([name, bridge], options) = flat(d, ["name", "bridge"])?;
        Ok(Self { name: word("name", &name)?, bridge: word("bridge", &bridge)?, options })
    }
}

/// The keys of an FDB entry that can be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FdbOptions {
    vlan: Option<u16>,
    #[serde(default, deserialize_with = "tunnel::maybe_ip")]
    remote: Option<IpAddr>,
    sticky: Option<bool>,
}

impl<'de> Deserialize<'de> for FdbSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([mac, bridge, port], FdbOptions { vlan, remote, sticky }) = flat(d, ["mac", "bridge", "port"])?;
        Ok(Self {
            mac: word("mac", &mac)?,
            bridge: word("bridge", &bridge)?,
            vlan: vlan.unwrap_or(0),
            port: word("port", &port)?,
            remote,
            sticky: sticky.unwrap_or(false),
        })
    }
}

/// The keys of a neighbour that can be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NeighOptions {
    vlan: Option<u16>,
}

impl<'de> Deserialize<'de> for NeighSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([ip, mac, bridge], NeighOptions { vlan }) = flat(d, ["ip", "mac", "bridge"])?;
        Ok(Self {
            ip: tunnel::ip(&ip).map_err(|e| D::Error::custom(bad_value("ip", &e)))?,
            mac: word("mac", &mac)?,
            bridge: word("bridge", &bridge)?,
            vlan: vlan.unwrap_or(0),
        })
    }
}

impl<'de> Deserialize<'de> for DeviceSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([name, kind], options): (_, DeviceOptions) = flat(d, ["name", "type"])?;
        Ok(Self { name: word("name", &name)?, kind: word("type", &kind)?, options })
    }
}

impl<'de> Deserialize<'de> for UplinkSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let ([name, address], options): (_, UplinkOptions) = flat(d, ["name", "address"])?;
        let address = words::address(&address).map_err(|e| D::Error::custom(bad_value("address", &e)))?;
        Ok(Self { name: word("name", &name)?, address, options })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::PortOptions;

    fn port(value: serde_json::Value) -> Result<PortSpec, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn an_object_is_flat_in_json_both_ways() {
        let json = json!({ "name": "vm1", "bridge": "br0", "type": "tap", "trunk": "10,20", "native": 5,
            "flood": false, "address": ["198.51.100.1/24"], "secure": "mac=02:00:00:00:00:01" });
        let spec = port(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), json);
        let bridge = json!({ "name": "br0", "ageing": "300s" });
        assert_eq!(
            serde_json::to_value(serde_json::from_value::<BridgeSpec>(bridge.clone()).unwrap()).unwrap(),
            bridge
        );
        let fdb =
            json!({ "mac": "02:00:00:00:00:01", "bridge": "br0", "vlan": 10, "port": "vm1", "sticky": true });
        assert_eq!(
            serde_json::to_value(serde_json::from_value::<FdbSpec>(fdb.clone()).unwrap()).unwrap(),
            fdb
        );
        let neigh = json!({ "ip": "2001:db8::7", "mac": "02:00:00:00:00:07", "bridge": "br0", "vlan": 10 });
        assert_eq!(
            serde_json::to_value(serde_json::from_value::<NeighSpec>(neigh.clone()).unwrap()).unwrap(),
            neigh
        );
        let uplink = json!({ "name": "up0", "address": "198.51.100.1/30", "gateway": "198.51.100.2", "offload": false });
        assert_eq!(
            serde_json::to_value(serde_json::from_value::<UplinkSpec>(uplink.clone()).unwrap()).unwrap(),
            uplink
        );
    }

    #[test]
    fn what_is_null_is_not_given() {
        let mut json = json!({ "name": "vm1", "bridge": "br0" });
        let plain = port(json.clone()).unwrap();
        for key in keys_of::<PortOptions>() {
            json[key] = serde_json::Value::Null;
        }
        assert_eq!(port(json).unwrap(), plain);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_or_with_all() {
        let with = |key: &str| {
            let mut json = json!({ "name": "vm1", "bridge": "br0" });
            json[key] = json!(1);
            port(json).unwrap_err()
        };
        assert_eq!(with("mac-limit"), "unknown key \"mac-limit\"; did you mean \"mac_limit\"?");
        assert_eq!(with("brigde"), "unknown key \"brigde\"; did you mean \"bridge\"?");
        let all = with("colour\u{1b}[1m");
        assert!(
            all.starts_with("unknown key \"colour\\u{1b}[1m\"; the keys are name, bridge, type, access,"),
            "{all}"
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_its_key_and_what_is_allowed() {
        for (key, value, message) in [
            ("mtu", json!("big"), "mtu: invalid type: string \"big\", expected a number from 68 to 65521"),
            (
                "queues",
                json!(70000),
                "queues: invalid value: integer `70000`, expected a number from 1 to 256",
            ),
            (
                "access",
                json!(4095),
                "access: \"4095\" is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)",
            ),
            ("access", json!("x"), "access: invalid type: string \"x\", expected a number from 1 to 4094"),
            ("flood", json!("maybe"), "flood: \"maybe\" is neither on nor off"),
            (
                "type",
                json!("tun"),
                "type: unknown variant `tun`, expected one of `tap`, `netdev`, `stream`, `dgram`, `vhost-user`, `vxlan`, `geneve`",
            ),
            (
                "vni",
                json!(16_777_216),
                "vni: \"16777216\" is not a VNI: a number from 0 to 16777215 (24 bits)",
            ),
            ("local", json!("x"), "local: \"x\" is no IP address: write 198.51.100.1 or 2001:db8::1"),
            (
                "dst_port",
                json!(65_536),
                "dst_port: invalid value: integer `65536`, expected a number from 1 to 65535",
            ),
            (
                "gbp_id",
                json!(65_536),
                "gbp_id: invalid value: integer `65536`, expected a number from 0 to 65535",
            ),
            ("ttl", json!(256), "ttl: \"256\" is neither a number up to 255 nor inherit"),
            (
                "name",
                json!("a234567890123456"),
                "name: \"a234567890123456\" is no name: it has more than 15 bytes",
            ),
            ("name", json!(1), "name: invalid type: integer `1`, expected a string"),
            (
                "netns",
                json!("a\u{7}\nin `x`"),
                "netns: \"a\\u{7}\\nin `x`\" is no network namespace: give a name, a process number or a path",
            ),
        ] {
            let mut object = json!({ "name": "vm1", "bridge": "br0" });
            object[key] = value;
            assert_eq!(port(object).unwrap_err(), message);
        }
        assert_eq!(port(json!({ "name": "vm1" })).unwrap_err(), "bridge is missing");
    }

    #[test]
    fn the_keys_of_a_struct_are_its_fields() {
        assert_eq!(
            keys_of::<crate::config::BridgeOptions>(),
            ["ageing", "fdb_limit", "move_limit", "neigh_snoop"]
        );
        assert_eq!(keys_of::<FdbOptions>(), ["vlan", "remote", "sticky"]);
    }
}
