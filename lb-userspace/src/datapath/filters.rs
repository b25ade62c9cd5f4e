//! Programs as filters of a clsact queueing discipline, where the kernel has no TCX (before Linux 6.6).
//!
//! Such a filter stays when its agent ends, and goes with its device. The next agent knows it by
//! priority and name, which names the folder of the agent's pins: agents live side by side.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use lb_common::abi::Hook;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use crate::host::{Netlink, NetlinkError};

/// "lb", as nobody else would choose by hand; before those that the kernel chooses from 49152 on down.
const PRIORITY: u16 = u16::from_be_bytes(*b"lb");

/// `ETH_P_ALL`: the packets of every protocol.
const ALL_PROTOCOLS: u16 = 3;

/// The kernel keeps so many bytes of a name, with a zero at the end (`CLS_BPF_NAME_LEN`).
const LONGEST_NAME: usize = 255;

/// The filters of one agent.
#[derive(Debug)]
pub(super) struct Filters {
    netlink: Netlink,
    name: String,
}

/// A filter of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Its number among those of its priority.
    handle: u32,
    /// The id of its program.
    pub(super) program: u32,
}

/// A filter of our priority.
struct Found {
    filter: Filter,
    name: Option<String>,
}

impl Filters {
    /// Of the agent whose pins are in `bpffs`, in this network namespace.
    pub(super) fn open(bpffs: &Path) -> Result<Self> {
        Ok(Self { netlink: Netlink::open()?, name: name(bpffs) })
    }

    /// Our filter at a hook. Of a device that is gone, there is none.
    pub(super) fn find(&mut self, index: u32, hook: Hook) -> Result<Option<Filter>> {
        let all = self.of_priority(index, hook)?;
        let ours = all.into_iter().find(|found| found.name.as_ref() == Some(&self.name));
        Ok(ours.map(|found| found.filter))
    }

    /// Puts a program in the place of the one that our filter has, atomically, or makes the filter.
    pub(super) fn put(
        &mut self,
        index: u32,
        hook: Hook,
        present: Option<Filter>,
        program: BorrowedFd<'_>,
    ) -> Result<()> {
        let (handle, flags) = match present {
            Some(filter) => (filter.handle, NLM_F_CREATE),
            // Another agent may have been quicker: it is told so, and tries again.
            None => (self.free_handle(index, hook)?, NLM_F_CREATE | NLM_F_EXCL),
        };
        let program = u32::try_from(program.as_raw_fd()).context("a descriptor is not negative")?;
        let mut message = at(index, hook);
        message.header.handle = TcHandle::from(handle);
        message.attributes.push(TcAttribute::Options(
            [
                TcFilterBpfOption::ProgFd(program),
                TcFilterBpfOption::ProgName(self.name.clone()),
                TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
            ]
            .map(TcOption::Bpf)
            .into(),
        ));
        self.netlink
            .change(&RouteNetlinkMessage::NewTrafficFilter(message), flags)
            .context("making a filter of kind bpf (CONFIG_NET_CLS_BPF)")
    }

    /// Removes our filter.
    pub(super) fn remove(&mut self, index: u32, hook: Hook, filter: &Filter) -> Result<()> {
        let mut message = at(index, hook);
        message.header.handle = TcHandle::from(filter.handle);
        let removed = self.netlink.change(&RouteNetlinkMessage::DelTrafficFilter(message), 0);
        gone(removed).context("removing a filter")
    }

    /// Makes the queueing discipline that filters need. Returns whether there was none.
    pub(super) fn add_clsact(&mut self, index: u32) -> Result<bool> {
        let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(index));
        match self.netlink.change(&message, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(false)
            }
            Err(error) => Err(error)
                .context("making a queueing discipline of kind clsact (CONFIG_NET_SCH_INGRESS)"),
        }
    }

    /// Removes the queueing discipline, unless others have filters there.
    pub(super) fn remove_clsact_if_unused(&mut self, index: u32) -> Result<()> {
        for hook in [Hook::Ingress, Hook::Egress] {
            let mut question = at(index, hook);
            (question.header.info, question.attributes) = (0, Vec::new());
            let left = self.netlink.list(&RouteNetlinkMessage::GetTrafficFilter(question));
            match left {
                Ok(left) if left.is_empty() => {}
                // What is not understood is not ours.
                Ok(_) | Err(NetlinkError::Answer(_)) => return Ok(()),
                Err(error @ (NetlinkError::Refused(_) | NetlinkError::Socket(_))) => {
                    return gone(Err(error)).context("listing filters");
                }
            }
        }
        let removed =
            self.netlink.change(&RouteNetlinkMessage::DelQueueDiscipline(clsact(index)), 0);
        gone(removed).context("removing a queueing discipline")
    }

    fn free_handle(&mut self, index: u32, hook: Hook) -> Result<u32> {
        let all = self.of_priority(index, hook)?;
        let is_taken = |handle: &u32| all.iter().any(|found| found.filter.handle == *handle);
        (1..).find(|handle| !is_taken(handle)).context("no number is left")
    }

    fn of_priority(&mut self, index: u32, hook: Hook) -> Result<Vec<Found>> {
        let question = RouteNetlinkMessage::GetTrafficFilter(at(index, hook));
        let listed = match self.netlink.list(&question) {
            // The device is gone, or has no such discipline.
            Err(NetlinkError::Refused(_)) => Vec::new(),
            listed => listed.context("listing filters")?,
        };
        Ok(listed.iter().filter_map(Found::parse).collect())
    }
}

impl Found {
    /// `None` of what heads a list of filters.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate's enums; a few variants are ours"
    )]
    fn parse(object: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewTrafficFilter(message) = object else { return None };
        let handle = u32::from(message.header.handle);
        let mut found = Self { filter: Filter { handle, program: 0 }, name: None };
        let options = message.attributes.iter().filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        for option in options.flatten() {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => found.name = Some(name.clone()),
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => found.filter.program = *id,
                _ => {}
            }
        }
        (handle != 0).then_some(found)
    }
}

/// That there is nothing to remove is no error.
fn gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::Refused(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// How filters of the agent with these pins are called. Of a long path, the end tells most.
fn name(bpffs: &Path) -> String {
    let path = bpffs.display().to_string();
    let mut begin = path.len().saturating_sub(LONGEST_NAME - 3);
    while !path.is_char_boundary(begin) {
        begin += 1;
    }
    format!("lb:{}", &path[begin..])
}

/// Filters of our priority at a hook.
fn at(index: u32, hook: Hook) -> TcMessage {
    let minor = match hook {
        Hook::Ingress => TcHandle::MIN_INGRESS,
        Hook::Egress => TcHandle::MIN_EGRESS,
    };
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    message
}

fn clsact(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_agents_apart_and_fit() {
        assert_eq!(name(Path::new("/sys/fs/bpf/lb")), "lb:/sys/fs/bpf/lb");
        let long = name(&Path::new("/").join("ä".repeat(300)).join("one"));
        assert!(long.len() <= LONGEST_NAME && long.ends_with("ä/one"), "{long}");
    }
}
