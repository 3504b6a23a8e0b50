//! Requests as Varlink calls, and back.
//!
//! Owns the mapping between [`Request`] and a method name with its JSON parameters, both ways, and between
//! [`Refusal`] and a Varlink error.
//! Parameters are taken one by one out of the object instead of through one derived struct: only so can an error name
//! the parameter that is wrong, and an unknown one is refused, whatever the method.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{INTERFACE, Refusal, Request, hex};
use crate::config::{
    BridgeOptions, BridgeSpec, DeviceOptions, DeviceSpec, FdbSpec, NeighSpec, PortOptions, PortSpec,
    UplinkOptions, UplinkSpec,
};

/// The shortest interval at which a stream repeats.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A call that is no request; nothing was asked of the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The interface has no such method.
    #[error("method \"{0}\" does not exist")]
    MethodNotFound(String),
    /// A parameter is unknown, missing or of the wrong form.
    #[error("parameter \"{parameter}\": {problem}")]
    InvalidParameter {
        /// Which.
        parameter: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl CallError {
    fn parameter(parameter: &str, problem: impl ToString) -> Self {
        Self::InvalidParameter { parameter: parameter.to_owned(), problem: problem.to_string() }
    }
}

/// A request, and how often a stream repeats it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The parameter `interval_ms`.
    pub interval: Option<Duration>,
}

impl Call {
    /// Reads a call of `method`, a name without the interface before it.
    ///
    /// # Errors
    /// Unknown methods and parameters, and parameters missing or of the wrong form.
    pub fn from_varlink(method: &str, parameters: Value) -> Result<Self, CallError> {
        let mut p = Parameters::new(parameters)?;
        let repeats = matches!(method, "Status" | "PortList" | "Stats" | "Drops" | "Monitor");
        let interval = if repeats { p.optional("interval_ms")?.map(Duration::from_millis) } else { None };
        if interval.is_some_and(|i| i < MIN_INTERVAL) {
            return Err(CallError::parameter("interval_ms", "is below 100"));
        }
        Ok(Self { request: Request::take(method, p)?, interval })
    }
}

macro_rules! methods {
    ($($variant:ident)*) => {
        impl Request {
            /// The method of every request.
            pub const METHODS: &[&str] = &[$(stringify!($variant),)*];

            /// The name of its method, without the interface.
            pub fn method(&self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant),)* }
            }
        }
    };
}

methods! {
    Status BridgeAdd BridgeSet BridgeDel BridgeList PortAdd PortSet PortDel PortList PortShow FdbAdd FdbDel FdbList
    FdbFlush RemoteAdd RemoteDel RemoteList NeighAdd NeighDel NeighList DeviceAdd DeviceSet DeviceDel DeviceList
    DeviceShow UplinkAdd UplinkDel UplinkList Apply Export Diff Stats Drops Monitor Trace
}

impl Request {
    /// Reads a call of `method`, a name without the interface before it.
    ///
    /// # Errors
    /// Unknown methods and parameters, and parameters missing or of the wrong form.
    pub fn from_varlink(method: &str, parameters: Value) -> Result<Self, CallError> {
        Self::take(method, Parameters::new(parameters)?)
    }

    fn take(method: &str, mut p: Parameters) -> Result<Self, CallError> {
        let request = match method {
            "Status" => Self::Status,
            "BridgeAdd" => Self::BridgeAdd(p.bridge()?),
            "BridgeSet" => Self::BridgeSet(p.bridge()?),
            "BridgeDel" => Self::BridgeDel { name: p.required("name")? },
            "BridgeList" => Self::BridgeList,
            "PortAdd" => Self::PortAdd(Box::new(PortSpec {
                name: p.required("name")?,
                bridge: p.required("bridge")?,
                options: p.rest::<PortOptions>()?,
            })),
            "PortSet" => Self::PortSet {
                name: p.required("name")?,
                unset: p.optional("unset")?.unwrap_or_default(),
                options: Box::new(p.rest()?),
            },
            "PortDel" => Self::PortDel { name: p.required("name")? },
            "PortList" => Self::PortList,
            "PortShow" => Self::PortShow { name: p.required("name")? },
            "FdbAdd" => Self::FdbAdd(FdbSpec {
                mac: p.required("mac")?,
                bridge: p.required("bridge")?,
                vlan: p.optional("vlan")?.unwrap_or_default(),
                port: p.required("port")?,
                remote: p.optional("remote")?,
                sticky: p.optional("sticky")?.unwrap_or_default(),
            }),
            "FdbDel" => Self::FdbDel {
                mac: p.required("mac")?,
                bridge: p.required("bridge")?,
                vlan: p.optional("vlan")?.unwrap_or_default(),
            },
            "FdbList" => Self::FdbList {
                bridge: p.optional("bridge")?,
                port: p.optional("port")?,
                vlan: p.optional("vlan")?,
                cursor: p.optional("cursor")?,
                limit: p.optional("limit")?,
            },
            "FdbFlush" => Self::FdbFlush {
                bridge: p.optional("bridge")?,
                port: p.optional("port")?,
                vlan: p.optional("vlan")?,
            },
            "RemoteAdd" => Self::RemoteAdd { port: p.required("port")?, remote: p.required("remote")? },
            "RemoteDel" => Self::RemoteDel { port: p.required("port")?, remote: p.required("remote")? },
            "RemoteList" => Self::RemoteList { port: p.required("port")? },
            "NeighAdd" => Self::NeighAdd(NeighSpec {
                ip: p.required("ip")?,
                mac: p.required("mac")?,
                bridge: p.required("bridge")?,
                vlan: p.optional("vlan")?.unwrap_or_default(),
            }),
            "NeighDel" => Self::NeighDel {
                ip: p.required("ip")?,
                bridge: p.required("bridge")?,
                vlan: p.optional("vlan")?.unwrap_or_default(),
            },
            "NeighList" => Self::NeighList { bridge: p.optional("bridge")? },
            "DeviceAdd" => Self::DeviceAdd(Box::new(DeviceSpec {
                name: p.required("name")?,
                kind: p.required("type")?,
                options: p.rest::<DeviceOptions>()?,
            })),
            "DeviceSet" => Self::DeviceSet {
                name: p.required("name")?,
                unset: p.optional("unset")?.unwrap_or_default(),
                options: Box::new(p.rest()?),
            },
            "DeviceDel" => Self::DeviceDel { name: p.required("name")? },
            "DeviceList" => Self::DeviceList,
            "DeviceShow" => Self::DeviceShow { name: p.required("name")? },
            "UplinkAdd" => Self::UplinkAdd(Box::new(UplinkSpec {
                name: p.required("name")?,
                address: p.required("address")?,
                options: p.rest::<UplinkOptions>()?,
            })),
            "UplinkDel" => Self::UplinkDel { name: p.required("name")? },
            "UplinkList" => Self::UplinkList,
            "Apply" => Self::Apply {
                topology: p.required("topology")?,
                dry_run: p.optional("dry_run")?.unwrap_or_default(),
                prune: p.optional("prune")?.unwrap_or_default(),
            },
            "Export" => Self::Export,
            "Diff" => Self::Diff { topology: p.required("topology")? },
            "Stats" => Self::Stats { port: p.optional("port")? },
            "Monitor" => Self::Monitor { after: p.optional("after")? },
            "Drops" => Self::Drops { port: p.optional("port")? },
            "Trace" => Self::Trace {
                port: p.required("port")?,
                frame: hex::decode(&p.required::<String>("frame")?)
                    .map_err(|e| CallError::parameter("frame", e))?,
                vlan: p.optional("vlan")?,
            },
            _ => return Err(CallError::MethodNotFound(format!("{INTERFACE}.{method}"))),
        };
        p.finish()?;
        Ok(request)
    }

    /// Its parameters as [`Request::from_varlink`] reads them.
    pub fn parameters(&self) -> Value {
        let all = match self {
            Self::Status
            | Self::BridgeList
            | Self::PortList
            | Self::DeviceList
            | Self::UplinkList
            | Self::Export => json!({}),
            Self::BridgeAdd(spec) | Self::BridgeSet(spec) => json!(spec),
            Self::BridgeDel { name } => json!({ "name": name }),
            Self::PortAdd(spec) => json!(spec),
            Self::PortSet { name, options, unset } => {
                let mut all = json!(options);
                all["name"] = json!(name);
                if !unset.is_empty() {
                    all["unset"] = json!(unset);
                }
                all
            }
            Self::PortDel { name } | Self::PortShow { name } => json!({ "name": name }),
            Self::FdbAdd(spec) => json!(spec),
            Self::FdbDel { mac, bridge, vlan } => json!({ "mac": mac, "bridge": bridge, "vlan": vlan }),
            Self::FdbList { bridge, port, vlan, cursor, limit } => {
                json!({ "bridge": bridge, "port": port, "vlan": vlan, "cursor": cursor, "limit": limit })
            }
            Self::FdbFlush { bridge, port, vlan } => json!({ "bridge": bridge, "port": port, "vlan": vlan }),
            Self::RemoteAdd { port, remote } | Self::RemoteDel { port, remote } => {
                json!({ "port": port, "remote": remote })
            }
            Self::RemoteList { port } => json!({ "port": port }),
            Self::NeighAdd(spec) => json!(spec),
            Self::NeighDel { ip, bridge, vlan } => json!({ "ip": ip, "bridge": bridge, "vlan": vlan }),
            Self::NeighList { bridge } => json!({ "bridge": bridge }),
            Self::DeviceAdd(spec) => json!(spec),
            Self::DeviceSet { name, options, unset } => {
                let mut all = json!(options);
                all["name"] = json!(name);
                if !unset.is_empty() {
                    all["unset"] = json!(unset);
                }
                all
            }
            Self::DeviceDel { name } | Self::DeviceShow { name } => json!({ "name": name }),
            Self::UplinkAdd(spec) => json!(spec),
            Self::UplinkDel { name } => json!({ "name": name }),
            Self::Apply { topology, dry_run, prune } => {
                json!({ "topology": topology, "dry_run": dry_run, "prune": prune })
            }
            Self::Diff { topology } => json!({ "topology": topology }),
            Self::Monitor { after } => json!({ "after": after }),
            Self::Stats { port } | Self::Drops { port } => json!({ "port": port }),
            Self::Trace { port, frame, vlan } => {
                json!({ "port": port, "frame": hex::encode(frame), "vlan": vlan })
            }
        };
        match all {
            Value::Object(map) => Value::Object(without_nulls(map)),
            other => other,
        }
    }
}

impl Refusal {
    /// The name of the Varlink error, and its parameters.
    pub fn to_varlink(&self) -> (String, Value) {
        let (error, mut parameters) = match self {
            Self::NotFound { kind, name } => ("NotFound", json!({ "kind": kind, "name": name })),
            Self::Exists { kind, name, difference, .. } => {
                ("Exists", json!({ "kind": kind, "name": name, "difference": difference }))
            }
            Self::InUse { kind, name, by } => ("InUse", json!({ "kind": kind, "name": name, "by": by })),
            Self::Invalid { kind, name, reason } => {
                ("Invalid", json!({ "kind": kind, "name": name, "reason": reason }))
            }
            Self::Kernel { kind, name, reason } => {
                ("Kernel", json!({ "kind": kind, "name": name, "reason": reason }))
            }
            Self::Topology { mistakes } => ("Topology", json!({ "mistakes": mistakes })),
        };
        parameters["message"] = json!(self.to_string());
        (format!("{INTERFACE}.{error}"), parameters)
    }
}

/// The parameters of a call that nobody has taken yet.
struct Parameters(Map<String, Value>);

impl Parameters {
    fn new(parameters: Value) -> Result<Self, CallError> {
        match parameters {
            Value::Null => Ok(Self(Map::new())),
            Value::Object(map) => Ok(Self(without_nulls(map))),
            _ => Err(CallError::parameter("parameters", "is no object")),
        }
    }

    fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, CallError> {
        let value = self.0.remove(name);
        value.map(serde_json::from_value).transpose().map_err(|e| CallError::parameter(name, e))
    }

    fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, CallError> {
        self.optional(name)?.ok_or_else(|| CallError::parameter(name, "is missing"))
    }

    fn bridge(&mut self) -> Result<BridgeSpec, CallError> {
        Ok(BridgeSpec { name: self.required("name")?, options: self.rest::<BridgeOptions>()? })
    }

    /// Everything that is left, as a struct of which every field may be missing.
    fn rest<T: DeserializeOwned + Serialize>(&mut self) -> Result<T, CallError> {
        let map = std::mem::take(&mut self.0);
        serde_json::from_value(Value::Object(map.clone())).map_err(|whole| {
            // serde does not say which member it failed on; one alone fails the same way.
            let alone = map.into_iter().find_map(|(name, value)| {
                let one = Value::Object(Map::from_iter([(name.clone(), value)]));
                Some(CallError::parameter(&name, serde_json::from_value::<T>(one).err()?))
            });
            alone.unwrap_or_else(|| CallError::parameter("parameters", whole))
        })
    }

    fn finish(self) -> Result<(), CallError> {
        match self.0.keys().next() {
            Some(name) => Err(CallError::parameter(name, "is not a parameter of this method")),
            None => Ok(()),
        }
    }
}

fn without_nulls(mut map: Map<String, Value>) -> Map<String, Value> {
    map.retain(|_, v| !v.is_null());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(method: &str, parameters: Value) -> String {
        Call::from_varlink(method, parameters).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_parameter_that_is_wrong() {
        let port = |extra: Value| {
            let mut p = json!({ "name": "vm1", "bridge": "br0", "mtu": 1500 });
            p.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            p
        };
        assert!(problem("PortAdd", port(json!({ "access": 4095 }))).starts_with("parameter \"access\":"));
        assert!(problem("PortAdd", port(json!({ "acess": 10 }))).starts_with("parameter \"acess\": unknown"));
        assert!(problem("PortAdd", json!({ "name": "vm1" })).contains("\"bridge\": is missing"));
        assert!(
            problem("PortAdd", port(json!({ "name": "a-name-of-16-byt" }))).contains("more than 15 bytes")
        );
        assert!(problem("BridgeDel", json!({ "name": "br0", "x": 1 })).contains("\"x\": is not a parameter"));
        assert!(problem("Trace", json!({ "port": "vm1", "frame": "0g" })).starts_with("parameter \"frame\""));
        assert!(problem("Stats", json!({ "interval_ms": 1 })).contains("below 100"));
        assert!(problem("BridgeList", json!({ "interval_ms": 1000 })).contains("is not a parameter"));
        assert!(problem("Status", json!([])).contains("is no object"));
        assert_eq!(problem("Nothing", json!({})), "method \"io.tapway.Nothing\" does not exist");
    }

    #[test]
    fn null_is_the_same_as_left_out() {
        let call = Call::from_varlink("Stats", json!({ "port": null, "interval_ms": null })).unwrap();
        assert_eq!(call, Call { request: Request::Stats { port: None }, interval: None });
        assert!(problem("BridgeDel", json!({ "name": null })).contains("\"name\": is missing"));
    }

    #[test]
    fn a_refusal_carries_its_sentence() {
        let (error, parameters) = Refusal::NotFound { kind: "port", name: "vm9".to_owned() }.to_varlink();
        assert_eq!(error, "io.tapway.NotFound");
        assert_eq!(parameters["name"], "vm9");
        assert!(parameters["message"].as_str().unwrap().contains("\"vm9\" does not exist"));
    }
}
