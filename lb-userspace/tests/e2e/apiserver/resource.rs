//! What the server serves, and the paths of it.

use serde_json::Value;

/// A resource, which has one version here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Services,
    Pods,
    Nodes,
    EndpointSlices,
    ServiceCidrs,
    Events,
}

impl Resource {
    const ALL: [Self; 6] = [
        Self::Services,
        Self::Pods,
        Self::Nodes,
        Self::EndpointSlices,
        Self::ServiceCidrs,
        Self::Events,
    ];

    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::Pods => "Pod",
            Self::Nodes => "Node",
            Self::EndpointSlices => "EndpointSlice",
            Self::ServiceCidrs => "ServiceCIDR",
            Self::Events => "Event",
        }
    }

    /// As in paths.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceCidrs => "servicecidrs",
            Self::Events => "events",
        }
    }

    /// The API group; the core group has no name.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Services | Self::Pods | Self::Nodes => "",
            Self::EndpointSlices => "discovery.k8s.io",
            Self::ServiceCidrs => "networking.k8s.io",
            Self::Events => "events.k8s.io",
        }
    }

    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::Services | Self::Pods | Self::Nodes => "v1",
            Self::EndpointSlices => "discovery.k8s.io/v1",
            Self::ServiceCidrs => "networking.k8s.io/v1",
            Self::Events => "events.k8s.io/v1",
        }
    }

    pub(super) const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Nodes | Self::ServiceCidrs)
    }

    /// As messages name it: `endpointslices.discovery.k8s.io`.
    pub(super) fn qualified(self) -> String {
        match self.group() {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        }
    }

    /// What an object is one of.
    #[track_caller]
    pub(super) fn of(object: &Value) -> Self {
        let same = |resource: &Self| {
            object["kind"] == resource.kind() && object["apiVersion"] == resource.api_version()
        };
        let found = Self::ALL.into_iter().find(same);
        found.unwrap_or_else(|| panic!("the server has no such resource: {object}"))
    }

    /// The fields of an empty object beside its metadata, as Go writes them: bookmarks have them.
    pub(super) fn empty(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Services => &[("spec", "{}"), ("status", r#"{"loadBalancer":{}}"#)],
            Self::Pods | Self::Nodes | Self::ServiceCidrs => &[("spec", "{}"), ("status", "{}")],
            Self::EndpointSlices => {
                &[("addressType", r#""""#), ("endpoints", "null"), ("ports", "null")]
            }
            Self::Events => &[("eventTime", "null"), ("regarding", "{}")],
        }
    }
}

/// What a path leads to: a collection, or an object.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut words = path.split('/').skip(1);
        let group = match (words.next()?, words.next()?) {
            ("api", "v1") => "",
            ("apis", group) if words.next()? == "v1" => group,
            _ => return None,
        };
        let words: Vec<_> = words.collect();
        let (namespace, plural, name) = match words[..] {
            [plural] => (None, plural, None),
            [plural, name] => (None, plural, Some(name)),
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            _ => return None,
        };
        let same = |it: &Resource| it.group() == group && it.plural() == plural;
        let resource = Resource::ALL.into_iter().find(same)?;
        let is_right = resource.is_namespaced() || namespace.is_none();
        let [namespace, name] = [namespace, name].map(|word| word.map(str::to_owned));
        is_right.then_some(Self { resource, namespace, name })
    }
}
