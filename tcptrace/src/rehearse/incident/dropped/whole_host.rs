//! Settings that hold for the whole host, changed for a while: only on a machine that has nothing to lose.

use std::fs;
use std::path::PathBuf;

use crate::rehearse::error::{During, Error, Result};

/// A setting, set back when this is dropped.
pub(super) struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Other programs' connections would suffer: a machine without any device but the loopback has none.
    pub(super) fn require_throwaway_machine() -> Result<()> {
        let devices = fs::read_dir("/sys/class/net").during("listing the network devices")?;
        let others = devices.flatten().any(|device| {
            // Tunnels that the kernel makes by itself, and that are down.
            let name = device.file_name().to_string_lossy().into_owned();
            !matches!(name.as_str(), "lo" | "sit0" | "ip6tnl0" | "tunl0" | "gre0" | "gretap0" | "erspan0")
        });
        if others {
            return Err(Error::NotSupported(
                "this takes a setting of the whole host: it is played only on a machine without network devices, such as a guest \
                 of `cargo xtask vm`"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Below `/proc/sys`.
    pub(super) fn set(name: &str, value: u32) -> Result<Self> {
        let path = PathBuf::from("/proc/sys").join(name);
        let before = fs::read_to_string(&path).during(format!("reading {name}"))?;
        fs::write(&path, value.to_string()).during(format!("setting {name}"))?;
        Ok(Self { path, before: before.trim().to_owned() })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            log::error!("{} stays changed; it was {}: {error}", self.path.display(), self.before);
        }
    }
}
