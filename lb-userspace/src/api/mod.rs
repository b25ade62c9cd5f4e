//! The agent's API: HTTP and JSON over a Unix socket that only root can open.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/services?namespace=&name=` (any plural) | [`types::List`] |
//! | `GET /v1/services?watch=true` | a line of JSON per [`types::WatchEvent`], first all that exists, then a bookmark |
//! | `POST /v1/apply` with [`types::ApplyRequest`] | a [`types::Outcome`] per object |
//! | `POST /v1/delete` with [`types::DeleteRequest`] | a [`types::Outcome`] per key |
//! | `GET /v1/status` | [`types::Status`] |

mod client;
mod server;
mod socket;
pub mod types;

pub use client::{Client, ClientError, Watch};
pub use server::{MAX_BODY, serve};
pub use socket::{LOCK_FILE, RunDir, SOCKET_FILE};
