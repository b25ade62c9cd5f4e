//! How clients get in: tokens, and the files that tell of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use serde_json::json;
use uuid::Uuid;

use crate::harness::sandbox;

/// A folder as pods find it at `/var/run/secrets/kubernetes.io/serviceaccount`, and a kubeconfig
/// beside it.
pub(super) struct Access {
    folder: PathBuf,
}

impl Access {
    /// Files for a server at `address`.
    pub(super) fn new(address: SocketAddr, authority: &str) -> Self {
        let sandbox = sandbox::get();
        let folder = sandbox.directory(sandbox.next_number());
        let access = Self { folder };
        fs::create_dir(access.service_account()).expect("the scratch file system is writable");
        write(&access.service_account().join("ca.crt"), authority);
        write(&access.service_account().join("namespace"), "kube-system");
        let config = access.config(address, authority);
        write(&access.kubeconfig(), &config);
        access
    }

    /// What is mounted into pods.
    pub(super) fn service_account(&self) -> PathBuf {
        self.folder.join("serviceaccount")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A new token, by a rename as kubelet does it.
    pub(super) fn new_token(&self) -> String {
        let token = Uuid::new_v4().to_string();
        write(&self.service_account().join("token"), &token);
        token
    }

    fn config(&self, address: SocketAddr, authority: &str) -> String {
        let authority = ByteString(authority.as_bytes().to_vec());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": authority,
            }}],
            "users": [{"name": "lb", "user": {"tokenFile": self.service_account().join("token")}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "lb"}}],
        });
        config.to_string()
    }
}

fn write(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).expect("the scratch file system is writable");
    fs::rename(&draft, path).expect("the scratch file system is writable");
}
