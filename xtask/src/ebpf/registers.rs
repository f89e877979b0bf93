//! aya's `ProbeContext::arg` and `RetProbeContext::ret` read the registers of the one processor that they were compiled for. The object
//! serves two: who wants an argument asks `tcptrace-ebpf/src/kernel/registers.rs`. Clippy could say so, if it saw the kernel side;
//! for the host that crate is an empty stub.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const CALLS: [&str; 4] = [".arg(", ".arg::<", ".ret(", ".ret::<"];

/// Refuses a kernel side in which something else asks a kprobe's context.
pub(super) fn check(workspace: &Path) -> Result<()> {
    check_below(&workspace.join("tcptrace-ebpf/src"))
}

fn check_below(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            check_below(&path)?;
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if let Some((number, line)) = of_one_processor(&text) {
            bail!(
                "{}:{number}: `{}` reads the registers of one processor: use argument() or result() of \
                 kernel/registers.rs",
                path.display(),
                line.trim()
            );
        }
    }
    Ok(())
}

/// The first line with such a call in a file about kprobes, and its number.
fn of_one_processor(text: &str) -> Option<(usize, &str)> {
    // The context of kretprobes has it in its name too; that of tracepoints has not.
    if !text.contains("ProbeContext") {
        return None;
    }
    (1..).zip(text.lines()).find(|(_, line)| {
        let code = line.split("//").next().unwrap_or_default();
        CALLS.iter().any(|call| code.contains(call))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    #[test]
    fn a_call_that_knows_one_processor_is_refused() {
        let with = |call: &str| format!("fn f(ctx: RetProbeContext) {{\n    {call}\n}}\n");
        assert_eq!(of_one_processor(&with("ctx.ret::<i32>()")), Some((2, "    ctx.ret::<i32>()")));
        assert_eq!(of_one_processor(&with("ctx.arg(0)")), Some((2, "    ctx.arg(0)")));
        assert_eq!(of_one_processor(&with("result(&ctx) // not ctx.ret()")), None);
        assert_eq!(of_one_processor("fn f(ctx: FExitContext) { ctx.arg(0) }"), None);
    }

    #[test]
    fn the_kernel_side_has_none() {
        check(&paths::workspace().unwrap()).unwrap();
    }
}
