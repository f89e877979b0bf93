//! What may rewrite the packets that pass a device, before the rest of the kernel sees them: XDP programs, and programs and filters
//! of traffic control. What they do is not known: that they are there is.

use std::collections::BTreeSet;

use super::devices::{Device, DeviceError};
use super::netns::{Netns, in_netns};
use super::rtnetlink::{attributes, list, text};
use super::steering;

/// Attach types (uapi/linux/bpf.h), from 6.6 and 6.7 on.
const TCX: [u32; 2] = [46, 47];
const NETKIT: [u32; 2] = [54, 55];
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// `struct tcmsg`.
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;

/// What passes packets on at one device, in words; empty if there is nothing.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn at(netns: &Netns, device: &Device) -> Result<Vec<String>, DeviceError> {
    let name = &device.name;
    let mut found = Vec::new();
    if device.has_xdp {
        found.push(format!("an XDP program on device {name}"));
    }
    let (programs, kinds) = in_netns(netns, || (programs(device), filters(device.index)))?;
    if programs > 0 {
        found.push(format!("{programs} BPF program(s) of traffic control (tcx or netkit) on device {name}"));
    }
    if !kinds.is_empty() {
        let kinds: Vec<String> = kinds.into_iter().collect();
        found.push(format!("filters of traffic control ({}) on device {name}", kinds.join(", ")));
    }
    Ok(found)
}

/// How many programs are attached without a filter; kernels that know no such programs have none.
fn programs(device: &Device) -> u32 {
    let netkit: &[u32] = if device.kind.as_deref() == Some("netkit") { &NETKIT } else { &[] };
    TCX.iter().chain(netkit).map(|kind| steering::programs_of_device(device.index, *kind).unwrap_or(0)).sum()
}

/// The kinds of the filters at its ingress and egress. A device without them answers with an error.
fn filters(index: u32) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for parent in PARENTS {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(parent.to_ne_bytes());
        body.extend([0; 4]);
        let asked = list(libc::RTM_GETTFILTER, &body, |body| {
            let of = attributes(body.get(TCMSG..).unwrap_or_default());
            kinds.extend(of.filter(|(kind, _)| *kind == TCA_KIND).map(|(_, value)| text(value)));
        });
        if let Err(error) = asked {
            log::debug!("filters of device {index}: {error}");
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::devices::device;
    use crate::host::testing::private_netns;

    #[test]
    fn filters_of_traffic_control_are_found() {
        let Some(netns) = private_netns() else { return };
        let lo = || at(&netns, &device(&netns, 1).unwrap().unwrap()).unwrap();
        assert_eq!(lo(), Vec::<String>::new());
        let tc = |arguments: &str| {
            let run = || {
                let mut command = std::process::Command::new("tc");
                command.args(arguments.split(' ')).status().is_ok_and(|status| status.success())
            };
            in_netns(&netns, run).unwrap()
        };
        if !tc("qdisc add dev lo clsact") || !tc("filter add dev lo ingress matchall action pass") {
            println!("skipped: no traffic control here");
            return;
        }
        assert_eq!(lo(), ["filters of traffic control (matchall) on device lo"]);
    }
}
