//! What `lb status -o json` says of counters, map fill and refused objects.

use std::collections::BTreeMap;

use serde_json::Value;

/// A hook's counters, by the names the status gives them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    TcpConnect,
    UdpConnect,
    UdpSend,
    UdpReceive,
    PeerName,
    /// A packet on its way in.
    Ingress,
    /// A packet on its way out.
    Egress,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::TcpConnect => "tcpConnect",
            Self::UdpConnect => "udpConnect",
            Self::UdpSend => "udpSend",
            Self::UdpReceive => "udpReceive",
            Self::PeerName => "peerName",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The parsed document.
#[derive(Debug)]
pub(crate) struct Status(Value);

impl Status {
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }

    /// How often the hook has decided so. Zero counters may be left out.
    #[track_caller]
    pub(crate) fn counter(&self, op: Op, reason: &str) -> u64 {
        let counters = &self.0["datapath"]["counters"];
        assert!(counters.is_object(), "status has no .datapath.counters: {}", self.0);
        counters[op.name()][reason].as_u64().unwrap_or(0)
    }

    /// All that the hook has decided, and how often.
    #[track_caller]
    pub(crate) fn counted(&self, op: Op) -> BTreeMap<String, u64> {
        let counters = self.0["datapath"]["counters"].as_object();
        let counters = counters.unwrap_or_else(|| panic!("no .datapath.counters: {}", self.0));
        let reasons = counters.get(op.name()).and_then(Value::as_object).into_iter().flatten();
        let count = |count: &Value| count.as_u64().unwrap_or_else(|| panic!("{count}: no count"));
        reasons.map(|(reason, number)| (reason.clone(), count(number))).collect()
    }

    /// How often any hook has decided so.
    #[track_caller]
    pub(crate) fn counters(&self, reason: &str) -> u64 {
        let counters = self.0["datapath"]["counters"].as_object();
        let counters = counters.unwrap_or_else(|| panic!("no .datapath.counters: {}", self.0));
        counters.values().map(|reasons| reasons[reason].as_u64().unwrap_or(0)).sum()
    }

    /// How many entries of the map are in use.
    #[track_caller]
    pub(crate) fn used(&self, map: &str) -> u64 {
        self.map(map)["used"].as_u64().unwrap_or_else(|| panic!("{map} has no `used`: {}", self.0))
    }

    /// How many entries the map can hold.
    #[track_caller]
    pub(crate) fn capacity(&self, map: &str) -> u64 {
        let capacity = self.map(map)["capacity"].as_u64();
        capacity.unwrap_or_else(|| panic!("{map} has no `capacity`: {}", self.0))
    }

    /// A count about sockets: `closedTcp`, `closedUdp`, `failed`, `reclaimed`.
    #[track_caller]
    pub(crate) fn sockets(&self, count: &str) -> u64 {
        let found = self.0["sockets"][count].as_u64();
        found.unwrap_or_else(|| panic!("status has no .sockets.{count}: {}", self.0))
    }

    /// A count about flows: `established`, `opening`, `closed`, `udp`, `strays`, `collected`.
    #[track_caller]
    pub(crate) fn flows(&self, count: &str) -> u64 {
        let found = self.0["flows"][count].as_u64();
        found.unwrap_or_else(|| panic!("status has no .flows.{count}: {}", self.0))
    }

    #[track_caller]
    fn map(&self, name: &str) -> &Value {
        let maps = self.0["datapath"]["maps"].as_array();
        maps.and_then(|maps| maps.iter().find(|map| map["name"] == name))
            .unwrap_or_else(|| panic!("status has no map {name}: {}", self.0))
    }

    /// The addresses on which NodePorts are served.
    #[track_caller]
    pub(crate) fn node_port_addresses(&self) -> Vec<&str> {
        let addresses = self.0["agent"]["nodePortAddresses"].as_array();
        let addresses = addresses.unwrap_or_else(|| panic!("status has none: {}", self.0));
        addresses.iter().filter_map(Value::as_str).collect()
    }

    /// The ports that packets to endpoints elsewhere get.
    pub(crate) fn snat_ports(&self) -> Option<&str> {
        self.0["datapath"]["snatPorts"].as_str()
    }

    /// Where health checks are not answered, and why.
    pub(crate) fn health_problems(&self) -> Vec<String> {
        let problems = self.0["healthChecks"]["problems"].as_array().into_iter().flatten();
        problems.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The ids of the loaded programs, sorted.
    #[track_caller]
    pub(crate) fn program_ids(&self) -> Vec<u64> {
        let programs = self.0["datapath"]["programs"].as_array();
        let programs = programs.unwrap_or_else(|| panic!("status has no programs: {}", self.0));
        let mut ids: Vec<_> =
            programs.iter().filter_map(|program| program["id"].as_u64()).collect();
        ids.sort_unstable();
        ids
    }

    /// The network devices that are to have the packet programs: `eth0 tcx`, `br0 filter inside`, or
    /// the reason why they have not. `None` without a packet path.
    pub(crate) fn devices(&self) -> Option<Vec<String>> {
        let devices = self.0["datapath"]["devices"]["selected"].as_array()?;
        let shown = devices.iter().map(|device| {
            let text = |field: &str| device[field].as_str().unwrap_or_default();
            let inside = if device["inside"] == true { " inside" } else { "" };
            format!("{} {}{}{inside}", text("name"), text("attached"), text("error"))
        });
        Some(shown.collect())
    }

    /// The names of the devices whose packets are not translated and might be.
    pub(crate) fn unseen_devices(&self) -> Vec<&str> {
        let unseen = self.0["datapath"]["devices"]["unseen"].as_array();
        unseen.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The folder of maps that still decides while the agent takes over from it.
    pub(crate) fn taking_over(&self) -> Option<&str> {
        self.0["datapath"]["takingOver"]["layout"].as_str()
    }

    /// The folders of maps that are kept for their sockets, and how many those are.
    pub(crate) fn former_layouts(&self) -> Vec<(String, u64)> {
        let former = self.0["datapath"]["formerLayouts"].as_array();
        let former = former.into_iter().flatten();
        former
            .map(|layout| {
                let name = layout["layout"].as_str().unwrap_or_default().to_owned();
                (name, layout["sockets"].as_u64().unwrap_or_default())
            })
            .collect()
    }

    /// What came of the agent's test of itself.
    pub(crate) fn self_test(&self) -> Option<Result<(), String>> {
        let test = &self.0["datapath"]["selfTest"];
        let ok = test["ok"].as_bool()?;
        Some(if ok { Ok(()) } else { Err(test["error"].as_str().unwrap_or_default().to_owned()) })
    }

    /// The objects and files that the manifests directory holds and the agent refuses.
    #[track_caller]
    pub(crate) fn refused(&self) -> &[Value] {
        let refused = self.0["refused"].as_array();
        refused.unwrap_or_else(|| panic!("status has no .refused: {}", self.0))
    }

    /// One of the refused whose every text occurs in its source, object or message.
    pub(crate) fn refusal_with(&self, texts: &[&str]) -> Result<String, String> {
        let refused: Vec<_> = self.refused().iter().map(Value::to_string).collect();
        refused
            .iter()
            .find(|entry| texts.iter().all(|text| entry.contains(text)))
            .cloned()
            .ok_or_else(|| format!("no refusal names {texts:?}; refused: {refused:?}"))
    }

    /// How many objects of the kind (`services`, `pods`, `endpointSlices`) are kept.
    #[track_caller]
    pub(crate) fn objects(&self, kind: &str) -> u64 {
        let count = self.0["objects"][kind].as_u64();
        count.unwrap_or_else(|| panic!("status has no .objects.{kind}: {}", self.0))
    }
}
