//! `lb close`: sockets whose backends are gone.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;

use super::Done;
use super::args::RunDirArg;
use super::output::Out;
use super::status::{Machine, print_machine};
use super::table::Table;
use crate::api::types::CloseReport;
use crate::sockets::CloseRequest;

#[derive(Args, Debug)]
pub(super) struct CloseArgs {
    /// TCP connections, too, whose endpoint has left its Service
    #[arg(long)]
    tcp: bool,
    /// List them, and close none
    #[arg(long)]
    dry_run: bool,
    /// Another form than the table
    #[arg(short, long, value_enum)]
    output: Option<Machine>,
    #[command(flatten)]
    run_dir: RunDirArg,
}

pub(super) async fn run(args: CloseArgs, out: &mut Out) -> Done {
    let request = CloseRequest { tcp: args.tcp, dry_run: args.dry_run };
    let report = args.run_dir.client().close(request).await?;
    match args.output {
        Some(form) => print_machine(&report, form, out)?,
        None => print(&report, args.dry_run, out)?,
    }
    out.flush()?;
    for problem in &report.problems {
        writeln!(io::stderr(), "not looked at: {problem}")?;
    }
    let failed = report.sockets.iter().any(|socket| socket.error.is_some());
    Ok(!failed && report.problems.is_empty())
}

fn print(report: &CloseReport, dry_run: bool, out: &mut Out) -> Result<()> {
    if report.sockets.is_empty() {
        return Ok(writeln!(out, "No socket is to be closed.")?);
    }
    let heading = ["NAMESPACE", "PROTOCOL", "LOCAL", "FRONTEND", "BACKEND", "CAUSE", "RESULT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(report.sockets.iter().map(|socket| {
        let done = if dry_run { "would be closed" } else { "closed" };
        vec![
            socket.namespace.clone(),
            socket.protocol.to_string(),
            socket.local.to_string(),
            socket.frontend.to_string(),
            socket.backend.to_string(),
            socket.cause.to_string(),
            socket.error.clone().unwrap_or_else(|| done.to_owned()),
        ]
    }));
    Table::default().print(out, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ClosedSocket;
    use crate::cli::output::tests::Captured;
    use crate::plan::Protocol;
    use crate::sockets::Cause;

    #[test]
    fn each_socket_is_a_row_that_says_why_and_what_became_of_it() {
        let socket = ClosedSocket {
            namespace: "net:[42]".into(),
            protocol: Protocol::Udp,
            local: "10.244.0.1:4000".parse().expect("an address"),
            frontend: "10.96.0.10:53".parse().expect("an address"),
            backend: "10.244.1.1:5353".parse().expect("an address"),
            cause: Cause::EndpointGone,
            error: None,
        };
        let denied = ClosedSocket { error: Some("not permitted".into()), ..socket.clone() };
        let report = CloseReport { sockets: vec![socket, denied], problems: Vec::new() };
        let captured = Captured::default();
        print(&report, false, &mut captured.out()).expect("printed");
        let row = "net:[42]    UDP        10.244.0.1:4000   10.96.0.10:53   10.244.1.1:5353   \
                   the endpoint is gone   ";
        assert_eq!(
            captured.text(),
            format!(
                "NAMESPACE   PROTOCOL   LOCAL             FRONTEND        BACKEND           \
                 CAUSE                  RESULT\n{row}closed\n{row}not permitted\n"
            )
        );
    }
}
