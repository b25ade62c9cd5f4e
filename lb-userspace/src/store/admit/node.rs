//! Nodes: lb reads their labels (zones) and addresses.

use k8s_openapi::api::core::v1::Node;

use super::Review;
use super::syntax;

pub(super) fn admit(node: &mut Node, review: &mut Review) {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    for (index, address) in addresses.unwrap_or_default().iter().enumerate() {
        let field = format!("status.addresses[{index}]");
        if address.type_.is_empty() {
            review.causes.required(format!("{field}.type"), "");
        }
        // `Hostname`, `InternalDNS` and `ExternalDNS` are names.
        if matches!(address.type_.as_str(), "InternalIP" | "ExternalIP")
            && let Err(rule) = syntax::ip(&address.address)
        {
            review.causes.invalid(format!("{field}.address"), address.address.as_str(), rule);
        }
    }
}
