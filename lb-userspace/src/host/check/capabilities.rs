//! The capabilities that the agent uses, and what is lost without each (capabilities(7)).
//!
//! The table was found by trying: `lb-userspace/tests/e2e/capabilities.rs` starts the agent without each of
//! them. `docs/kubernetes.md` and the manifests in `deploy/` have the same list.

use rustix::thread::CapabilitySet;

use super::{Finding, Level, finding, ok};

/// A capability, and why it is needed.
struct Need {
    /// As capabilities(7) spells it.
    name: &'static str,
    capability: CapabilitySet,
    /// One that brings it.
    also: CapabilitySet,
    /// How bad it is to lack it.
    level: Level,
    /// What is lost.
    lost: &'static str,
}

/// Everything that the agent uses, the most important first.
const NEEDS: [Need; 6] = [
    Need {
        name: "CAP_BPF",
        capability: CapabilitySet::BPF,
        also: CapabilitySet::SYS_ADMIN,
        level: Level::Fail,
        lost: "lb agent cannot load maps and programs; run it as root, or with this capability",
    },
    Need {
        name: "CAP_NET_ADMIN",
        capability: CapabilitySet::NET_ADMIN,
        also: CapabilitySet::empty(),
        level: Level::Fail,
        lost: "lb agent cannot load and attach programs; run it as root, or with this capability",
    },
    Need {
        name: "CAP_PERFMON",
        capability: CapabilitySet::PERFMON,
        also: CapabilitySet::SYS_ADMIN,
        level: Level::Fail,
        lost: "the kernel's verifier refuses lb's programs; run lb agent as root, or with this capability",
    },
    Need {
        name: "CAP_SYS_ADMIN",
        capability: CapabilitySet::SYS_ADMIN,
        also: CapabilitySet::empty(),
        level: Level::Warn,
        lost: "sockets in other network namespaces stay open when their backends are gone, and lb agent cannot take \
               over from a version with another layout of its maps, nor mount a BPF file system",
    },
    Need {
        name: "CAP_SYS_PTRACE",
        capability: CapabilitySet::SYS_PTRACE,
        also: CapabilitySet::empty(),
        level: Level::Warn,
        lost: "network namespaces of processes that lb agent may not look into are not found: their sockets stay open \
               when their backends are gone, and places of sockets are not freed",
    },
    Need {
        name: "CAP_DAC_READ_SEARCH",
        capability: CapabilitySet::DAC_READ_SEARCH,
        also: CapabilitySet::DAC_OVERRIDE,
        level: Level::Warn,
        lost: "what processes of other users hold open is not seen: some UDP sockets stay open when their backends are \
               gone, and after an upgrade some lose their way back",
    },
];

/// What this process lacks.
pub(super) fn findings() -> Vec<Finding> {
    const SUBJECT: &str = "capabilities";
    match held() {
        Some(held) => judge(held),
        None => {
            let found = "unknown: the kernel does not tell";
            vec![finding(SUBJECT, Level::Warn, found, "run `lb check` as root to know")]
        }
    }
}

/// Whether this process has a capability.
pub(super) fn has(capability: CapabilitySet) -> bool {
    held().is_some_and(|held| held.contains(capability))
}

fn held() -> Option<CapabilitySet> {
    Some(rustix::thread::capabilities(None).ok()?.effective)
}

fn judge(held: CapabilitySet) -> Vec<Finding> {
    let lacks = |need: &&Need| !held.intersects(need.capability | need.also);
    let missing: Vec<_> = NEEDS.iter().filter(lacks).collect();
    if missing.is_empty() {
        return vec![ok("capabilities", "all that lb uses")];
    }
    let finding = |need: &Need| finding(need.name, need.level, "missing", need.lost);
    missing.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_that_is_missing_is_named_with_its_level() {
        let all = NEEDS.iter().fold(CapabilitySet::empty(), |all, need| all | need.capability);
        let without_admin = all - CapabilitySet::SYS_ADMIN;
        let cases = [
            (all, vec![("capabilities", Level::Ok)]),
            (CapabilitySet::all(), vec![("capabilities", Level::Ok)]),
            (without_admin, vec![("CAP_SYS_ADMIN", Level::Warn)]),
            (all - CapabilitySet::BPF - CapabilitySet::PERFMON, vec![("capabilities", Level::Ok)]),
            (
                without_admin - CapabilitySet::BPF,
                vec![("CAP_BPF", Level::Fail), ("CAP_SYS_ADMIN", Level::Warn)],
            ),
            (all - CapabilitySet::NET_ADMIN, vec![("CAP_NET_ADMIN", Level::Fail)]),
            (all - CapabilitySet::SYS_PTRACE, vec![("CAP_SYS_PTRACE", Level::Warn)]),
            (all - CapabilitySet::DAC_READ_SEARCH, vec![("CAP_DAC_READ_SEARCH", Level::Warn)]),
            (
                (all - CapabilitySet::DAC_READ_SEARCH) | CapabilitySet::DAC_OVERRIDE,
                vec![("capabilities", Level::Ok)],
            ),
        ];
        for (held, expected) in cases {
            let found = judge(held);
            let found: Vec<_> = found.iter().map(|one| (one.subject, one.level)).collect();
            assert_eq!(found, expected, "{held:?}");
        }
        let nothing = judge(CapabilitySet::empty());
        assert_eq!(nothing.len(), NEEDS.len());
    }
}
