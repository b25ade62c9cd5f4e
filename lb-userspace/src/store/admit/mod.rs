//! One object on its way in: defaults, validation and allocation as the API server does them.
//!
//! An admission is undone as a whole: [`admit`] does so itself when it fails; a dry run, or a store
//! that then cannot be written, takes [`Pools::mark`] before it and [`Pools::undo`]es to it
//! afterwards. [`Pools::commit`] makes it final.

mod cause;
mod endpoints;
mod metadata;
mod node;
mod pod;
mod service;
mod syntax;
#[cfg(test)]
mod tests;

use super::allocate::Pools;
use crate::object::Object;

use cause::Causes;
pub use cause::{Cause, Invalid};
pub(crate) use syntax::dns_label;
pub(super) use syntax::special_ip;

/// An object as it is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// With defaults and allocations filled in; only `metadata.resourceVersion` is the store's.
    pub object: Object,
    /// Things worth saying that stop nothing.
    pub warnings: Vec<String>,
}

/// Admits `new` in place of `old`, the stored object with the same key if there is one. Allocates
/// what it needs and gives back what it no longer needs; on an error `pools` are as before.
pub fn admit(
    mut new: Object,
    old: Option<&Object>,
    pools: &mut Pools,
) -> Result<Admitted, Invalid> {
    let mark = pools.mark();
    metadata::prepare(&mut new, old.map(Object::metadata));
    let key = new.key();
    let mut review = Review { causes: Causes::default(), warnings: Vec::new() };
    metadata::validate(key.kind, new.metadata(), &mut review.causes);
    match &mut new {
        Object::Service(new) => {
            let old = old.and_then(|old| match old {
                Object::Service(old) => Some(&**old),
                Object::Pod(_)
                | Object::EndpointSlice(_)
                | Object::Endpoints(_)
                | Object::Node(_) => None,
            });
            service::admit(new, old, &key, pools, &mut review);
        }
        Object::Pod(new) => pod::admit(new, &mut review),
        Object::EndpointSlice(new) => {
            let old = old.and_then(|old| match old {
                Object::EndpointSlice(old) => Some(&**old),
                Object::Service(_) | Object::Pod(_) | Object::Endpoints(_) | Object::Node(_) => {
                    None
                }
            });
            endpoints::admit_slice(new, old, &mut review);
        }
        Object::Endpoints(new) => endpoints::admit_endpoints(new, &mut review),
        Object::Node(new) => node::admit(new, &mut review),
    }
    if review.causes.is_empty() {
        Ok(Admitted { object: new, warnings: review.warnings })
    } else {
        pools.undo(mark);
        Err(Invalid { key, causes: review.causes.into_vec() })
    }
}

/// Gives back everything that a deleted object held.
pub fn release(object: &Object, pools: &mut Pools) {
    if let Object::Service(service) = object {
        service::release(service, &object.key(), pools);
    }
}

/// Marks what a stored object holds as taken, at the agent's start. What cannot be marked is said
/// in a warning, and the object keeps it all the same: a ClusterIP never changes.
pub fn reclaim(object: &Object, pools: &mut Pools) -> Vec<String> {
    match object {
        Object::Service(service) => service::reclaim(service, &object.key(), pools),
        Object::Pod(_) | Object::EndpointSlice(_) | Object::Endpoints(_) | Object::Node(_) => {
            Vec::new()
        }
    }
}

/// What an admission has found so far.
struct Review {
    causes: Causes,
    warnings: Vec<String>,
}
