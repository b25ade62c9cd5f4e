//! The lines about network devices.

use crate::datapath::{DeviceStatus, DevicesStatus, Way};

/// More names than that tell a person nothing.
const NAMES: usize = 8;

/// NodePorts seem to be there, and nobody reaches them.
const NO_DEVICE: &str =
    "none: clients elsewhere reach no Service; name the device that they come by with --device";

/// Where the packet programs are, where they could not be, and what they do not see.
pub(super) fn lines(status: Option<&DevicesStatus>) -> Vec<String> {
    let Some(DevicesStatus { selected, unseen }) = status else {
        return vec!["none (--no-packet-path)".to_owned()];
    };
    let (failed, attached): (Vec<_>, Vec<_>) =
        selected.iter().partition(|device| device.error.is_some());
    let attached: Vec<String> = attached.into_iter().map(name).collect();
    let mut lines =
        vec![if attached.is_empty() { NO_DEVICE.to_owned() } else { attached.join(", ") }];
    lines.extend(failed.into_iter().map(|DeviceStatus { name, error, .. }| {
        format!("{name}: not attached: {}", error.as_deref().unwrap_or_default())
    }));
    if !unseen.is_empty() {
        let names = first(unseen);
        lines.push(format!("not translated: packets for Services by {names} (--device adds them)"));
    }
    lines
}

fn name(device: &DeviceStatus) -> String {
    let way = match device.attached {
        Some(Way::Filter) => " (filter)",
        Some(Way::Tcx) | None => "",
    };
    format!("{}{way}", device.name)
}

fn first(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, attached: Option<Way>, error: Option<&str>) -> DeviceStatus {
        let (name, error) = (name.to_owned(), error.map(str::to_owned));
        DeviceStatus { name, index: 7, inside: false, attached, error }
    }

    #[test]
    fn devices_are_named_with_what_is_wrong_with_them() {
        let selected = vec![
            device("eth0", Some(Way::Tcx), None),
            device("ib0", None, Some("its packets begin with what lb cannot read")),
            device("br0", Some(Way::Filter), None),
        ];
        let unseen = (0..10).map(|n| format!("vpn{n}")).collect();
        assert_eq!(
            lines(Some(&DevicesStatus { selected, unseen })),
            [
                "eth0, br0 (filter)",
                "ib0: not attached: its packets begin with what lb cannot read",
                "not translated: packets for Services by vpn0, vpn1, vpn2, vpn3, vpn4, vpn5, vpn6, \
                 vpn7 and 2 more (--device adds them)",
            ]
        );
        assert_eq!(lines(Some(&DevicesStatus::default())), [NO_DEVICE]);
        assert_eq!(lines(None), ["none (--no-packet-path)"]);
    }
}
