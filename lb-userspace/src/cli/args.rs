//! Arguments that several commands share.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::api::Client;
use crate::host::{DEFAULT_BPFFS, Places};
use crate::object::Kind;

/// Where the agent's socket is.
#[derive(Args, Clone, Debug)]
pub(super) struct RunDirArg {
    /// Folder of the agent's socket
    #[arg(long, env = "LB_RUN_DIR", default_value = "/run/lb", value_name = "DIR")]
    pub(super) run_dir: PathBuf,
}

impl RunDirArg {
    pub(super) fn client(&self) -> Client {
        Client::new(&self.run_dir)
    }
}

/// Every folder that an agent uses.
#[derive(Args, Clone, Debug)]
pub(super) struct PlacesArgs {
    /// Folder of the stored objects and their addresses
    #[arg(long, env = "LB_STATE_DIR", default_value = "/var/lib/lb", value_name = "DIR")]
    pub(super) state_dir: PathBuf,
    #[command(flatten)]
    pub(super) run_dir: RunDirArg,
    /// Folder of pinned programs and maps, on a BPF file system
    #[arg(long, env = "LB_BPFFS", default_value = DEFAULT_BPFFS, value_name = "DIR")]
    pub(super) bpffs: PathBuf,
    /// cgroup v2 folder whose processes are served [default: the root of the hierarchy]
    #[arg(long, env = "LB_CGROUP", value_name = "DIR")]
    pub(super) cgroup: Option<PathBuf>,
}

impl PlacesArgs {
    /// The folders as absolute paths.
    pub(super) fn places(&self) -> Result<Places> {
        Ok(Places {
            state_dir: std::path::absolute(&self.state_dir)?,
            run_dir: std::path::absolute(&self.run_dir.run_dir)?,
            bpffs: std::path::absolute(&self.bpffs)?,
            cgroup: self.cgroup.as_deref().map(std::path::absolute).transpose()?,
        })
    }
}

/// Objects meant on the command line: all of a kind, or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) name: Option<String>,
}

/// Understands `svc`, `svc,pods`, `svc mysql redis` and `svc/mysql pod/web`.
pub(super) fn parse_targets(words: &[String]) -> Result<Vec<Target>> {
    let slashes = words.iter().filter(|word| word.contains('/')).count();
    if slashes == words.len() {
        return words.iter().map(|word| parse_slashed(word)).collect();
    }
    if slashes > 0 {
        bail!("either KIND NAME… or KIND/NAME KIND/NAME…, not both");
    }
    let Some((kinds, names)) = words.split_first() else { bail!("no kind given, such as svc") };
    let mut targets = Vec::new();
    for kind in kinds.split(',') {
        let kind = parse_kind(kind)?;
        if names.is_empty() {
            targets.push(Target { kind, name: None });
        }
        targets.extend(names.iter().map(|name| Target { kind, name: Some(name.clone()) }));
    }
    Ok(targets)
}

fn parse_slashed(word: &str) -> Result<Target> {
    match word.split('/').collect::<Vec<_>>()[..] {
        [kind, name] if !kind.is_empty() && !name.is_empty() => {
            Ok(Target { kind: parse_kind(kind)?, name: Some(name.to_owned()) })
        }
        _ => bail!("{word} is not of the form KIND/NAME, such as svc/mysql"),
    }
}

fn parse_kind(word: &str) -> Result<Kind> {
    Kind::parse(word).ok_or_else(|| {
        let served: Vec<_> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
        anyhow!("lb serves no resource type \"{word}\"; it serves {}", served.join(", "))
    })
}

/// As kubectl says it: `services "x" not found`.
pub(super) fn not_found(kind: Kind, name: &str) -> String {
    let group = kind.api_version().split_once('/').map(|(group, _)| format!(".{group}"));
    format!(
        "Error from server (NotFound): {}{} \"{name}\" not found",
        kind.plural(),
        group.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(line: &str) -> Result<Vec<(Kind, Option<String>)>> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        Ok(parse_targets(&words)?.into_iter().map(|t| (t.kind, t.name)).collect())
    }

    #[test]
    fn kinds_and_names_are_understood_in_all_of_kubectls_forms() {
        let name = |name: &str| Some(name.to_owned());
        let cases = [
            ("svc", vec![(Kind::Service, None)]),
            ("svc,po", vec![(Kind::Service, None), (Kind::Pod, None)]),
            ("Services a b", vec![(Kind::Service, name("a")), (Kind::Service, name("b"))]),
            ("svc/a ep/b", vec![(Kind::Service, name("a")), (Kind::Endpoints, name("b"))]),
        ];
        for (line, expected) in cases {
            assert_eq!(targets(line).expect(line), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (line, reason) in [
            ("deployments", "it serves services, pods"),
            ("svc pod/a", "not both"),
            ("svc/", "svc/mysql"),
            ("svc/a/b", "svc/mysql"),
        ] {
            let error = targets(line).expect_err(line).to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn missing_objects_are_named_as_kubectl_does() {
        assert_eq!(
            not_found(Kind::Service, "x"),
            "Error from server (NotFound): services \"x\" not found"
        );
        assert_eq!(
            not_found(Kind::EndpointSlice, "x"),
            "Error from server (NotFound): endpointslices.discovery.k8s.io \"x\" not found"
        );
    }
}
