//! The embedded eBPF object, and the bytes that go in and out of its maps.

use tcptrace_common::{KernelLayout, TraceConfig, listener::ListenerState, wire::Endpoints};

/// The committed object that `cargo xtask ebpf` made; aligned as an ELF reader wants it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/tcptrace.bpf.o");

/// The layout as the eBPF side's global has it: its members in order, each a native-endian u32.
#[must_use]
pub fn bytes_of_layout(layout: &KernelLayout) -> Vec<u8> {
    layout.values().iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The configuration as the eBPF side's global has it.
#[must_use]
pub fn bytes_of_config(config: &TraceConfig) -> Vec<u8> {
    let TraceConfig { flags, netns, port_count, pad, ports } = *config;
    let words = [flags, netns, port_count, pad];
    words.iter().flat_map(|w| w.to_ne_bytes()).chain(ports.iter().flat_map(|p| p.to_ne_bytes())).collect()
}

/// A map value of `LISTENERS`.
#[must_use]
pub fn listener_state(bytes: &[u8; size_of::<ListenerState>()]) -> ListenerState {
    let mut cursor = Cursor(bytes);
    ListenerState {
        syns: cursor.u64(),
        syn_drops_accept_queue: cursor.u64(),
        syn_drops_syn_queue: cursor.u64(),
        ack_drops: cursor.u64(),
        ack_drops_other: cursor.u64(),
        enqueued: cursor.u64(),
        accepted: cursor.u64(),
        wait_total_ns: cursor.u64(),
        waits: cursor.u64(),
        wait_max_ns: cursor.u64(),
        last_accept_ns: cursor.u64(),
        last_enqueue_ns: cursor.u64(),
        depth_max: cursor.u32(),
        depth: cursor.u32(),
        limit: cursor.u32(),
        last_acceptor_tid: cursor.u32(),
        last_acceptor_tgid: cursor.u32(),
        pad: cursor.u32(),
        endpoints: Endpoints {
            local: cursor.take(),
            remote: cursor.take(),
            local_port: cursor.u16(),
            remote_port: cursor.u16(),
            family: cursor.u16(),
            pad: cursor.u16(),
            netns: cursor.u32(),
            device: cursor.u32(),
        },
        ino: cursor.u64(),
    }
}

/// Reads integers in order; past the end it reads zero, which the array's length rules out.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globals_are_as_long_as_their_types() {
        assert_eq!(bytes_of_layout(&KernelLayout::NOTHING).len(), size_of::<KernelLayout>());
        assert_eq!(bytes_of_config(&TraceConfig::default()).len(), size_of::<TraceConfig>());
    }

    #[test]
    fn listener_state_reads_every_member_at_its_place() {
        let mut bytes = [0; size_of::<ListenerState>()];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).unwrap();
        }
        let state = listener_state(&bytes);
        assert_eq!(state.syns, u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
        let at = std::mem::offset_of!(ListenerState, ino);
        assert_eq!(state.ino.to_ne_bytes(), bytes[at..at + 8]);
        let at = std::mem::offset_of!(ListenerState, endpoints);
        assert_eq!(state.endpoints.local, bytes[at..at + 16]);
        let at = std::mem::offset_of!(ListenerState, limit);
        assert_eq!(state.limit.to_ne_bytes(), bytes[at..at + 4]);
    }
}
