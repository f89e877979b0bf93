//! Names of network devices.

use nix::net::if_::if_indextoname;

use super::netns::{Netns, in_netns};

/// The name of the device with this index in `netns`; `None` if there is none, or the namespace cannot be entered.
pub fn name(netns: &Netns, index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let named =
        in_netns(netns, || if_indextoname(index).ok()?.into_string().ok().filter(|name| !name.is_empty()));
    named.inspect_err(|error| log::debug!("the name of device {index}: {error}")).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    #[test]
    fn the_first_device_of_a_namespace_is_lo() {
        let Some(netns) = private_netns() else { return };
        assert_eq!(name(&netns, 1).as_deref(), Some("lo"));
        assert_eq!((name(&netns, 0), name(&netns, 999)), (None, None));
    }
}
