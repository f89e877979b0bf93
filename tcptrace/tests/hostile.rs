//! A process that calls itself what moves a terminal or turns a line round: none of it reaches standard output, in any form.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{lines, stage, tcptrace};
use tcptrace::host::netns::in_netns;

/// U+202E turns round what follows, U+009B is CSI to a terminal of eight bits, and ESC [ 2 J clears the screen.
const NAME: &str = "e\u{202e}v\u{9b}l\u{1b}[2J";

fn is_harmless(what: &str, output: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(output).with_context(|| what.to_owned())?;
    let found = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    ensure!(found.is_none(), "{what}: {found:?} in {text:?}");
    Ok(())
}

fn names_it(what: &str, output: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(output);
    ensure!(text.contains("\\u{202e}") || text.contains("\\u202e"), "{what} does not name it: {text}");
    is_harmless(what, output)
}

#[test]
fn no_name_reaches_the_terminal_as_it_is() -> Result<()> {
    let Some((stage, netns)) = stage()? else { return Ok(()) };
    std::fs::write("/proc/self/comm", NAME)?;
    stage.server().set_sysctl("net.ipv4.ip_local_port_range", "20000 20010")?;
    let _listener = in_netns(&netns, || TcpListener::bind("0.0.0.0:20001"))??;
    let id = netns.id().to_string();
    for json in [false, true] {
        for arguments in [
            vec!["check", "--netns", &id],
            vec!["ports", "--netns", &id],
            vec!["who", "20001", "--netns", &id],
            vec!["listeners", "--netns", &id],
            vec!["why", "127.0.0.1:20001", "--for", "0s", "--netns", &id],
        ] {
            let what = format!("{arguments:?} json {json}");
            let arguments = [arguments, if json { vec!["--json"] } else { vec![] }].concat();
            let output = tcptrace(&netns, &arguments)?;
            if arguments[0] == "ports" {
                is_harmless(&what, &output.stdout)
            } else {
                names_it(&what, &output.stdout)
            }?;
            is_harmless(&format!("{what}: stderr"), &output.stderr)?;
            if arguments == ["who", "20001", "--netns", &id, "--json"] {
                ensure!(
                    lines(&output)?[0]["subject"]["process"]["comm"] == NAME,
                    "to a parser it is the same name: {output:?}"
                );
            }
        }
    }
    recorded(&id, &netns)
}

fn recorded(id: &str, netns: &tcptrace::host::netns::Netns) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("hostile.arrows");
    let file = path.to_str().context("a path in UTF-8")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["record", "--all", "--netns", id, "--for", "4s", "-o", file]).stderr(Stdio::null());
    let mut recorder = in_netns(netns, || command.spawn())??;
    for _ in 0..35 {
        std::thread::sleep(Duration::from_millis(100));
        // A conflict, with a hostile holder and requester; and the listener again, which is an event.
        in_netns(netns, || {
            let first = TcpListener::bind("127.0.0.1:20005");
            drop((TcpListener::bind("127.0.0.1:20005"), first));
        })?;
    }
    match recorder.wait()?.code() {
        Some(0) => {}
        Some(3 | 4) => {
            println!("skipped: tracing is not possible here");
            return Ok(());
        }
        other => anyhow::bail!("record ended with {other:?}"),
    }
    let page = directory.path().join("page.html");
    for arguments in [
        vec!["replay", file],
        vec!["replay", "--json", file],
        vec!["replay", "--events", file],
        vec!["replay", "--events", "--json", file],
        vec!["report", file],
        vec!["report", "--json", file],
        vec!["export", "--format", "csv", file],
        vec!["export", "--format", "jsonl", file],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(&arguments).output()?;
        names_it(&format!("{arguments:?}"), &output.stdout)?;
    }
    let html = ["report", file, "--html", page.to_str().context("a path in UTF-8")?];
    ensure!(Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(html).status()?.success());
    names_it("the page", &std::fs::read(Path::new(&page))?)
}
